//! Dates of the archive's indexes: RFC 5322 text, always UTC (Debian wiki, "RepositoryFormat", Date).

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Seconds since 1970 of `Sat, 12 Sep 2026 07:55:41 UTC`; the day's name is optional, other zones than UTC
/// (`GMT`, `Z`, `+0000`) are not read.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [day, month, year, time, zone] = words.as_slice() else {
        return None;
    };
    if !matches!(*zone, "UTC" | "GMT" | "Z" | "+0000") {
        return None;
    }
    let month = MONTHS.iter().position(|name| name == month)? as i64 + 1;
    let day = number(day, 2).filter(|day| (1..=31).contains(day))?;
    let year = number(year, 4).filter(|year| *year >= 1970)?;
    let clock: Vec<i64> = time
        .split(':')
        .map(|part| number(part, 2))
        .collect::<Option<_>>()?;
    let [hour, minute, second] = clock.as_slice() else {
        return None;
    };
    if *hour > 23 || *minute > 59 || *second > 60 {
        return None;
    }
    Some(days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() <= digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar: years are counted from March so that the leap
/// day comes last, and every 400 years have the same 146097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_parse_known_instants_match_date_1() {
        assert_eq!(parse("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse("Sat, 12 Sep 2026 07:55:41 UTC"), Some(1_789_199_741));
        assert_eq!(parse("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        assert_eq!(parse("1 Mar 2100 0:00:00 +0000"), Some(4_107_542_400));
    }

    #[test]
    fn date_parse_other_forms_are_none() {
        for text in [
            "",
            "2026-09-12",
            "Sat, 12 Sep 2026 07:55:41 CET",
            "Sat, 32 Sep 2026 07:55:41 UTC",
            "Sat, 12 Sep 2026 25:55:41 UTC",
            "Sat, 12 Sep 2026 07:55 UTC",
            "Sat, 12 Foo 2026 07:55:41 UTC",
            "Sat, -2 Sep 2026 07:55:41 UTC",
            "Sat, 12 Sep 99999999999999999999 07:55:41 UTC",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn date_parse_of_random_text_does_not_panic(text in "[A-Za-z0-9:, +-]{0,40}") {
            parse(&text);
        }
    }
}
