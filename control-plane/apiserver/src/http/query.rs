//! Query parameters.

use hull_api::ApiError;

/// The decoded parameters of a request, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                (decode(key, true), decode(value, true))
            })
            .collect();
        Query { pairs }
    }

    /// The first value of a parameter, or "".
    pub(crate) fn get(&self, key: &str) -> &str {
        self.pairs
            .iter()
            .find(|(k, _)| k == key)
            .map_or("", |(_, value)| value)
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    /// A truth value: absent, `0` and `false` are false.
    pub(crate) fn flag(&self, key: &str) -> bool {
        match self.pairs.iter().find(|(k, _)| k == key) {
            None => false,
            Some((_, value)) => !matches!(value.as_str(), "0" | "false" | "False" | "FALSE"),
        }
    }

    /// A number of at least zero.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        match self.get(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }

    /// `dryRun`: `All` or absent.
    pub(crate) fn dry_run(&self, kind: &str, name: &str) -> Result<bool, ApiError> {
        let mut dry = false;
        for value in self.all("dryRun") {
            if value != "All" {
                let mut errors = hull_api::field::Errors::default();
                errors.not_supported(
                    &hull_api::field::Path::new("dryRun"),
                    vec![value.to_string()],
                    &["All"],
                );
                return Err(ApiError::invalid(
                    "meta.k8s.io",
                    kind,
                    name,
                    errors.into_vec(),
                ));
            }
            dry = true;
        }
        Ok(dry)
    }
}

/// Undoes percent encoding; what is no encoding stays as it is.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'+' if plus_is_space => out.push(b' '),
            b'%' => {
                let rest = bytes.as_slice();
                let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
                match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
                    Some(value) => {
                        out.push(value);
                        bytes.nth(1);
                    }
                    None => out.push(b'%'),
                }
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse(
            "labelSelector=app%3Dweb%2Ctier+in+(a)&watch=1&limit=5&x=%zz&command=a&command=b",
        );
        assert_eq!(query.get("labelSelector"), "app=web,tier in (a)");
        assert!(query.flag("watch"));
        assert!(!query.flag("absent"));
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert_eq!(query.get("x"), "%zz");
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a", "b"]);
        assert!(Query::parse("limit=-1").number("limit").is_err());
        assert!(
            Query::parse("dryRun=Some")
                .dry_run("CreateOptions", "")
                .is_err()
        );
    }
}
