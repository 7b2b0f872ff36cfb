//! Seconds since 1970 as a date and a time of day in UTC.

const DAY: u64 = 86_400;
/// Days in 400 years of the Gregorian calendar, after which it repeats.
const ERA: u64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_468;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: u64,
    pub(super) month: u8,
    pub(super) day: u8,
    /// Sunday is 1.
    pub(super) weekday: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl Civil {
    pub(super) fn from_unix(seconds: u64) -> Self {
        let days = seconds / DAY;
        let (year, month, day) = date(days + DAYS_BEFORE_1970);
        let second = seconds % DAY;
        Self {
            year,
            month,
            day,
            // 1970 began on a Thursday.
            weekday: ((days + 4) % 7 + 1) as u8,
            hour: (second / 3600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
        }
    }
}

/// Year, month and day of the day that lies `days` after 0000-03-01. Years begin in March here, so that the
/// leap day is the last of its year.
fn date(days: u64) -> (u64, u8, u8) {
    let day_of_era = days % ERA;
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / (ERA - 1);
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, months repeat 31, 30, 31, 30, 31: 153 days in five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = days / ERA * 400 + year_of_era + u64::from(month <= 2);
    (year, month as u8, day as u8)
}
