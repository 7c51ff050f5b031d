//! Query parameters. Unknown ones are ignored; bad values are refused with the name of the parameter.

use std::{
    future::{Ready, ready},
    ops::RangeInclusive,
    time::Duration,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Query};

use crate::{
    error::{ApiError, Code},
    store::Page,
};

/// The longest wait that can be asked for, in seconds.
pub(super) const MAX_WAIT: f64 = 600.0;

/// The parameters of a request, in order. Of two with one name the first counts.
#[derive(Debug, Clone, Default)]
pub struct Params(Vec<(String, String)>);

impl FromRequest for Params {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::parse(request.query_string()))
    }
}

fn invalid(code: Code, name: &str, what: &str) -> ApiError {
    ApiError::new(code, format!("The parameter {name} must be {what}.")).with("parameter", name)
}

impl Params {
    fn parse(query: &str) -> Result<Self, ApiError> {
        Query::<Vec<(String, String)>>::from_query(query).map(|pairs| Self(pairs.into_inner())).map_err(|error| {
            log::debug!("bad query string: {error}");
            ApiError::new(Code::InvalidParameter, "The query string cannot be read.")
        })
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter, as a text of its own.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// `invalid_parameter`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(invalid(Code::InvalidParameter, name, "true or false")),
        }
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// `invalid_limit`.
    pub fn count(&self, name: &str, default: u32, range: RangeInclusive<u32>) -> Result<u32, ApiError> {
        let Some(text) = self.get(name) else { return Ok(default) };
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|number| plain && range.contains(number));
        number.ok_or_else(|| {
            let what = format!("a whole number from {} to {}", range.start(), range.end());
            invalid(Code::InvalidLimit, name, &what).with("maximum", range.end())
        })
    }

    /// A `seq`.
    ///
    /// # Errors
    /// `invalid_cursor`.
    pub fn seq(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.get(name).map(|text| seq(name, text)).transpose()
    }

    /// An id that a list is read from.
    ///
    /// # Errors
    /// `invalid_cursor`.
    pub(super) fn cursor<T: std::str::FromStr + ToString>(&self, name: &str) -> Result<Option<String>, ApiError> {
        let parse = |text: &str| {
            let id = text.parse::<T>().ok();
            id.ok_or_else(|| invalid(Code::InvalidCursor, name, "an id of this list"))
        };
        Ok(self.get(name).map(parse).transpose()?.map(|id| id.to_string()))
    }

    /// `limit`, `after`, `before` and `order` of a list of things with ids of type `T`.
    ///
    /// # Errors
    /// `invalid_limit`, `invalid_cursor`, `invalid_parameter`.
    pub(super) fn page<T: std::str::FromStr + ToString>(&self) -> Result<Page, ApiError> {
        let page = Page {
            limit: self.count("limit", 20, 1..=100)?,
            after: self.cursor::<T>("after")?,
            before: self.cursor::<T>("before")?,
            ascending: match self.get("order") {
                None | Some("desc") => false,
                Some("asc") => true,
                Some(_) => return Err(invalid(Code::InvalidParameter, "order", "asc or desc")),
            },
        };
        if page.after.is_some() && page.before.is_some() {
            return Err(invalid(Code::InvalidParameter, "before", "left out where there is an after"));
        }
        Ok(page)
    }

    /// Prefixes of event types: separated by commas, in one parameter or in several.
    #[must_use]
    pub fn types(&self) -> Vec<String> {
        let values = self.0.iter().filter(|(key, _)| key == "types");
        let words = values.flat_map(|(_, value)| value.split(',')).map(str::trim);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    /// `wait`: seconds, also fractions, from 0 to 600.
    ///
    /// # Errors
    /// `invalid_parameter`.
    pub(super) fn wait(&self) -> Result<Option<Duration>, ApiError> {
        let Some(text) = self.get("wait") else { return Ok(None) };
        let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=MAX_WAIT).contains(seconds));
        let seconds = seconds.ok_or_else(|| invalid(Code::InvalidParameter, "wait", "seconds from 0 to 600"))?;
        Ok(Some(Duration::from_secs_f64(seconds)))
    }
}

/// Reads a `seq` out of the parameter or header `name`.
pub(super) fn seq(name: &str, text: &str) -> Result<u64, ApiError> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| plain && *number <= i64::MAX as u64);
    number.ok_or_else(|| invalid(Code::InvalidCursor, name, "the seq of an event, or 0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;

    fn params(query: &str) -> Params {
        Params::parse(query).unwrap()
    }

    #[test]
    fn limits_are_whole_numbers_in_their_range() {
        let limit = |query: &str| params(query).count("limit", 20, 1..=100).map_err(|error| error.code);
        assert_eq!(limit("x=1"), Ok(20));
        assert_eq!(limit("limit=100&limit=0"), Ok(100));
        for bad in ["limit=0", "limit=101", "limit=-1", "limit=%2B5", "limit=1.5", "limit=", "limit=99999999999"] {
            assert_eq!(limit(bad), Err(Code::InvalidLimit), "{bad}");
        }
    }

    #[test]
    fn cursors_are_ids_of_the_list() {
        let id = SessionId::new();
        let page = params(&format!("after={id}&order=asc")).page::<SessionId>().unwrap();
        assert_eq!(page, Page { limit: 20, after: Some(id.to_string()), before: None, ascending: true });
        for (query, code) in [
            ("after=ses_1".to_owned(), Code::InvalidCursor),
            ("before=".to_owned(), Code::InvalidCursor),
            ("order=up".to_owned(), Code::InvalidParameter),
            (format!("after={id}&before={id}"), Code::InvalidParameter),
        ] {
            assert_eq!(params(&query).page::<SessionId>().unwrap_err().code, code, "{query}");
        }
    }

    #[test]
    fn flags_waits_and_types() {
        assert_eq!(params("archived=true").flag("archived"), Ok(Some(true)));
        assert_eq!(params("archived=yes").flag("archived").unwrap_err().code, Code::InvalidParameter);
        assert_eq!(params("wait=0.25").wait(), Ok(Some(Duration::from_millis(250))));
        for bad in ["wait=601", "wait=-1", "wait=NaN", "wait=inf", "wait="] {
            assert_eq!(params(bad).wait().unwrap_err().code, Code::InvalidParameter, "{bad}");
        }
        assert_eq!(params("types=turn.,%20choice.,,").types(), ["turn.", "choice."]);
        assert_eq!(params("types=turn.&x=1&types=choice.,tool.").types(), ["turn.", "choice.", "tool."]);
        assert_eq!(params("after=18446744073709551615").seq("after").unwrap_err().code, Code::InvalidCursor);
    }
}
