use proptest::prelude::*;

use super::*;

fn read(rtc: &mut Rtc, index: u8) -> u8 {
    rtc.port_write(INDEX, &[0x80 | index]);
    let mut data = [0xff];
    rtc.port_read(DATA, &mut data);
    data[0]
}

fn at(seconds: u64) -> Rtc {
    Rtc::new(Box::new(move || Duration::from_secs(seconds)))
}

#[test]
fn time_reads_in_bcd_and_24_hours() {
    // 2024-02-29 23:58:09, a Thursday.
    let mut rtc = at(1_709_251_089);
    let read = [
        SECONDS,
        MINUTES,
        HOURS,
        DAY_OF_WEEK,
        DAY_OF_MONTH,
        MONTH,
        YEAR,
        CENTURY,
    ]
    .map(|at| read(&mut rtc, at));
    assert_eq!(read, [0x09, 0x58, 0x23, 5, 0x29, 0x02, 0x24, 0x20]);
}

#[test]
fn status_says_valid_and_no_update_in_progress() {
    let mut rtc = at(0);
    let read = [REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D].map(|at| read(&mut rtc, at));
    assert_eq!(read, [0x20, 0x02, 0, 0x80]);
}

#[test]
fn write_to_time_is_swallowed() {
    let mut rtc = at(0);
    rtc.port_write(INDEX, &[SECONDS]);
    rtc.port_write(DATA, &[0x30]);
    assert_eq!(read(&mut rtc, SECONDS), 0);
}

#[test]
fn date_crosses_year_leap_and_century_ends() {
    let date = |seconds| {
        let civil = Civil::from_unix(seconds);
        (civil.year, civil.month, civil.day)
    };
    assert_eq!(date(0), (1970, 1, 1));
    assert_eq!(date(951_782_400), (2000, 2, 29));
    assert_eq!(date(1_735_689_599), (2024, 12, 31));
    assert_eq!(date(4_107_542_399), (2100, 2, 28));
    assert_eq!(date(4_107_542_400), (2100, 3, 1));
}

proptest! {
    #[test]
    fn any_access_and_any_clock_is_harmless(
        seconds in 0u64..1 << 60,
        accesses in prop::collection::vec((any::<bool>(), INDEX..=DATA, any::<[u8; 4]>(), 0usize..=4), 0..100),
    ) {
        let mut rtc = at(seconds);
        for (is_write, port, mut data, len) in accesses {
            if is_write { rtc.port_write(port, &data[..len]) } else { rtc.port_read(port, &mut data[..len]) }
        }
    }

    #[test]
    fn date_agrees_with_counting_days(days in 0u64..200_000) {
        let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut left = days;
        let mut year = 1970;
        while left >= 365 + u64::from(is_leap(year)) {
            left -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        while left >= lengths[month] {
            left -= lengths[month];
            month += 1;
        }
        let civil = Civil::from_unix(days * 86_400);
        prop_assert_eq!((civil.year, civil.month, civil.day), (year, month as u8 + 1, left as u8 + 1));
    }
}
