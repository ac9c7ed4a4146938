//! What a server's answer says, as far as a download asks for it; pure functions of foreign text.

use std::time::Duration;

use super::digest;

/// Longest address that is followed.
const MAX_URL_BYTES: usize = 8 << 10;

/// Status and headers of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// HTTP's status code.
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Answer {
    /// An answer with these headers; of those with one name the first counts.
    pub fn new(status: u16, headers: impl IntoIterator<Item = (String, String)>) -> Self {
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        Answer { status, headers: headers.into_iter().map(lower).collect() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(theirs, _)| theirs == name)?;
        Some(value.trim())
    }

    /// Length in bytes of what follows.
    pub fn length(&self) -> Option<u64> {
        number(self.header("content-length")?)
    }

    /// First byte and length of the whole, of an answer with a part of the file: `bytes FIRST-LAST/WHOLE`.
    pub fn part(&self) -> Option<(u64, u64)> {
        let (range, whole) = self.header("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, whole) = (number(first)?, number(last)?, number(whole)?);
        (first <= last && last < whole).then_some((first, whole))
    }

    /// What names this state of the file to its server, byte by byte; `None` for a weak tag.
    pub fn tag(&self) -> Option<&str> {
        self.header("etag").filter(|tag| {
            let inside = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            inside.is_some_and(|inside| {
                inside.len() <= 256 && inside.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
            })
        })
    }

    /// How long the server asks to wait; dates are not understood.
    pub fn retry_after(&self) -> Option<Duration> {
        number(self.header("retry-after")?).map(Duration::from_secs)
    }

    /// The commit that the hub took the file from.
    pub fn commit(&self) -> Option<&str> {
        self.header("x-repo-commit").filter(|commit| is_commit(commit))
    }

    /// SHA-256 of the file as the hub names it.
    pub fn sha256(&self) -> Option<&str> {
        let tag = self.header("x-linked-etag")?;
        Some(tag.trim_matches('"')).filter(|tag| digest::is_one(tag))
    }

    /// Length of the whole file in bytes as the hub names it.
    pub fn linked_length(&self) -> Option<u64> {
        number(self.header("x-linked-size")?)
    }

    /// Whether the bytes are the file's own, and not a compressed form.
    pub fn is_plain(&self) -> bool {
        self.header("content-encoding").is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"))
    }

    /// Where an answer to a question at `url` sends its reader; `None` where it names no address of HTTP, or leads from
    /// encryption to none.
    pub fn location(&self, url: &str) -> Option<String> {
        let target = self.header("location")?;
        if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (scheme, rest) = url.split_once("://")?;
        let host = rest.split(['/', '?', '#']).next()?;
        let absolute = if is_http(target) {
            target.to_string()
        } else if target.starts_with("//") {
            format!("{scheme}:{target}")
        } else if target.starts_with('/') {
            format!("{scheme}://{host}{target}")
        } else if target.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) {
            return None;
        } else {
            let path = rest[host.len()..].split(['?', '#']).next()?;
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{host}{folder}/{target}")
        };
        let open = is_encrypted(url) && !is_encrypted(&absolute);
        (absolute.len() <= MAX_URL_BYTES && is_http(&absolute) && !open).then_some(absolute)
    }
}

/// Whether the address is one of HTTP, with a host.
pub(super) fn is_http(url: &str) -> bool {
    let rest = ["https://", "http://"].iter().find_map(|scheme| {
        let (start, rest) = url.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']))
}

/// Whether the address, one of HTTP, is encrypted.
fn is_encrypted(url: &str) -> bool {
    url.split_at_checked("https:".len()).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https:"))
}

/// Whether the text is the name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Digits only: what else `parse` would take, such as a sign, no server means.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&str, &str)]) -> Answer {
        Answer::new(200, headers.iter().map(|(name, value)| (name.to_string(), value.to_string())))
    }

    #[test]
    fn numbers_ranges_and_tags() {
        let said =
            answer(&[("Content-Length", " 12 "), ("Content-Range", "bytes 5-16/17"), ("ETag", "\"a-1\"")]);
        assert_eq!((said.length(), said.part(), said.tag()), (Some(12), Some((5, 17)), Some("\"a-1\"")));
        for range in [
            "",
            "bytes 5-16/*",
            "bytes 16-5/17",
            "bytes 5-17/17",
            "bytes -5-16/17",
            "items 5-16/17",
            "bytes 5-16",
        ] {
            assert_eq!(answer(&[("content-range", range)]).part(), None, "{range}");
        }
        for length in ["", "-1", "+1", "1.5", "99999999999999999999"] {
            assert_eq!(answer(&[("content-length", length)]).length(), None, "{length}");
        }
        for tag in ["W/\"a\"", "a", "\"", "\"a\"b\"", "\"a b\""] {
            assert_eq!(answer(&[("etag", tag)]).tag(), None, "{tag}");
        }
        assert_eq!(answer(&[("retry-after", "7")]).retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(answer(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]).retry_after(), None);
    }

    #[test]
    fn what_the_hub_says_of_a_file() {
        let (commit, hash) = ("0123456789abcdef0123456789abcdef01234567", "ab".repeat(32));
        let linked = format!("\"{hash}\"");
        let said = answer(&[("X-Repo-Commit", commit), ("X-Linked-ETag", &linked), ("X-Linked-Size", "9")]);
        assert_eq!(
            (said.commit(), said.sha256(), said.linked_length()),
            (Some(commit), Some(&hash[..]), Some(9))
        );
        let odd = answer(&[("X-Repo-Commit", "main/../../.."), ("X-Linked-ETag", "\"abc\"")]);
        assert_eq!((odd.commit(), odd.sha256()), (None, None));
        assert!(said.is_plain() && !answer(&[("content-encoding", "gzip")]).is_plain());
    }

    #[test]
    fn redirects_are_joined_as_rfc_3986_says() {
        let url = "https://hub.example:8080/a/b/file?x=1#y";
        for (target, joined) in [
            ("https://cdn.example/f?s=1", Some("https://cdn.example/f?s=1")),
            ("HTTPS://cdn.example/f", Some("HTTPS://cdn.example/f")),
            ("//cdn.example/f", Some("https://cdn.example/f")),
            ("/f?s=a:b", Some("https://hub.example:8080/f?s=a:b")),
            ("f/g", Some("https://hub.example:8080/a/b/f/g")),
            ("f?s=a:b", Some("https://hub.example:8080/a/b/f?s=a:b")),
            ("file:///etc/passwd", None),
            ("ftp://cdn.example/f", None),
            ("https://", None),
            ("///f", None),
            ("http://cdn.example/f", None),
            ("HTTP://cdn.example/f", None),
            ("f g", None),
            ("", None),
        ] {
            assert_eq!(answer(&[("location", target)]).location(url).as_deref(), joined, "{target}");
        }
        for (target, joined) in [("f", "http://h/f"), ("//i/f", "http://i/f"), ("https://i/f", "https://i/f")]
        {
            assert_eq!(answer(&[("location", target)]).location("http://h").as_deref(), Some(joined));
        }
        let long = format!("/{}", "f".repeat(9000));
        assert_eq!(answer(&[("location", &long)]).location(url), None);
        assert!(is_encrypted("HTTPS://h") && !is_encrypted("http://h") && !is_http("httpsx://h"));
    }
}
