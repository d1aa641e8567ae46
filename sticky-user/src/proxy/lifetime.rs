//! How long a `Set-Cookie` lasts, read as browsers read it: the `cookie` crate knows four forms of dates, and they take
//! whatever has a time, a day, a month and a year in it.

use cookie::time::{Date, Month, PrimitiveDateTime, Time};

use super::seal::Lifetime;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// `Max-Age` and `Expires` of a line (RFC 6265, section 5.2): the last of each that is valid.
pub(super) fn of(line: &str, now: u64) -> Lifetime {
    let mut lifetime = Lifetime::default();
    for attribute in line.split(';').skip(1) {
        let Some((name, value)) = attribute.split_once('=') else { continue };
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("max-age") {
            let until = max_age(value).map(|age| now.saturating_add(age));
            lifetime.max_age = until.or(lifetime.max_age);
        } else if name.eq_ignore_ascii_case("expires") {
            lifetime.expires = date(value).or(lifetime.expires);
        }
    }
    lifetime
}

/// Seconds, where less than none is none (RFC 6265, section 5.2.2).
fn max_age(value: &str) -> Option<u64> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let longest = i64::MAX.unsigned_abs();
    Some(if value.starts_with('-') { 0 } else { digits.parse().unwrap_or(longest).min(longest) })
}

/// Seconds since 1970, and 0 for all that is before (RFC 6265, section 5.1.1).
fn date(value: &str) -> Option<u64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    // A token is the first of these that is still missing and that it can be.
    for token in value.split(is_delimiter) {
        if time.is_none() && clock(token).is_some() {
            time = clock(token);
        } else if day.is_none() && number(token, 1..=2).is_some() {
            day = number(token, 1..=2);
        } else if month.is_none() && month_of(token).is_some() {
            month = month_of(token);
        } else if year.is_none() {
            year = number(token, 2..=4);
        }
    }
    let year = match year? {
        year @ 70..=99 => 1900 + year,
        year @ 0..=69 => 2000 + year,
        year => year,
    };
    let date = Date::from_calendar_date(i32::from(year), month?, u8::try_from(day?).ok()?).ok()?;
    let at = PrimitiveDateTime::new(date, time?.ok()?).assume_utc().unix_timestamp();
    (year >= 1601).then(|| u64::try_from(at).unwrap_or(0))
}

const fn is_delimiter(c: char) -> bool {
    matches!(c, '\t' | ' '..='/' | ';'..='@' | '['..='`' | '{'..='~')
}

/// `8:05:09`, with anything but a digit behind it; whether there is such a time is another question.
fn clock(token: &str) -> Option<Result<Time, cookie::time::error::ComponentRange>> {
    let (hour, rest) = token.split_once(':')?;
    let (minute, second) = rest.split_once(':')?;
    let field = |text: &str| number(text, 1..=2).and_then(|n| u8::try_from(n).ok());
    let whole = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !whole(hour) || !whole(minute) {
        return None;
    }
    Some(Time::from_hms(field(hour)?, field(minute)?, field(second)?))
}

fn month_of(token: &str) -> Option<Month> {
    let start = token.get(..3)?;
    let at = MONTHS.iter().position(|month| start.eq_ignore_ascii_case(month))?;
    u8::try_from(at + 1).ok().and_then(|number| Month::try_from(number).ok())
}

/// The number that a token begins with, if it has as many digits as this.
fn number(token: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u16> {
    let end = token.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(token.len());
    digits.contains(&end).then(|| token.get(..end)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 6 November 1994, 08:49:37 GMT.
    const AT: u64 = 784_111_777;

    #[test]
    fn dates_that_browsers_take() {
        for (text, want) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", AT),
            ("Sunday, 06-Nov-94 08:49:37 GMT", AT),
            ("Sun Nov  6 08:49:37 1994", AT),
            ("Sun, 6 Nov 1994 08:49:37 GMT", AT),
            ("Sun, 6 Nov 1994 8:49:37 UTC", AT),
            ("Sun, 06 Nov 1994 08:49:37 +0000", AT),
            ("06 Nov 1994 08:49:37 GMT", AT),
            ("Sun, 06-NOVEMBER-1994 08:49:37 GMT", AT),
            ("1994 nov 6 08:49:37", AT),
            ("08:49:37, 6/Nov/94", AT),
            ("Sun, 06 Nov 1994 08:49:37GMT+0000 (Coordinated Universal Time)", AT),
            ("Thu, 1 Jan 1970 00:00:00 GMT", 0),
            ("Thu, 01-Jan-70 00:00:01 GMT", 1),
            ("Mon, 01-Jan-1601 00:00:00 GMT", 0),
            ("Tue, 31-Dec-69 23:59:59 GMT", 3_155_759_999),
        ] {
            assert_eq!(date(text), Some(want), "{text}");
        }
    }

    #[test]
    fn and_what_is_none() {
        for text in [
            "",
            "0",
            "soon",
            "Sun, 06 Nov 1994",
            "06 Nov 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Wed, 29 Feb 2023 08:49:37 GMT",
            "Sun, 006 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 19940 08:49:37 GMT",
            "Sun, 06 Nov 1600 08:49:37 GMT",
        ] {
            assert_eq!(date(text), None, "{text}");
        }
    }

    #[test]
    fn the_last_valid_one_of_each_counts() {
        let read = |line: &str| {
            let Lifetime { max_age, expires } = of(line, 1000);
            (max_age, expires)
        };
        for (attributes, want) in [
            ("", (None, None)),
            ("; Max-Age=", (None, None)),
            ("; Max-Age", (None, None)),
            ("; Max-Age=-", (None, None)),
            ("; Max-Age=+5", (None, None)),
            ("; Max-Age=5s", (None, None)),
            ("; Max-Age=\u{662}", (None, None)),
            ("; MAX-AGE = 5 ", (Some(1005), None)),
            ("; Max-Age=5; Max-Age=6; Max-Age=x", (Some(1006), None)),
            ("; Max-Age=-5", (Some(1000), None)),
            ("; Max-Age=0", (Some(1000), None)),
            ("; Max-Age=99999999999999999999999", (Some(1000 + i64::MAX as u64), None)),
            ("; Expires=Thu, 1 Jan 1970 00:00:09 GMT; expires=later", (None, Some(9))),
        ] {
            assert_eq!(read(&format!("session=1{attributes}")), want, "{attributes}");
        }
        assert_eq!(read("Max-Age=5"), (None, None), "the cookie's own name");
    }
}
