//! SHA-256, by which hubs name large files.

use std::{io::Read as _, path::Path};

use ring::digest::{Context, SHA256};

use crate::{Error, Result};

/// Whether the text is a SHA-256 in lower-case hexadecimal.
pub(super) fn is_one(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// SHA-256 and length in bytes of a file.
pub(super) fn of_file(path: &Path) -> Result<(String, u64)> {
    let failed = |error| Error::io(path, "read", error);
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut context, mut length) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => {
                context.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
    let digest = context.finish();
    Ok((digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standards_examples() {
        // FIPS 180-4, example computations of SHA-256, and of a million times "a".
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("message");
        for (message, digest) in [
            (b"abc".to_vec(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (vec![b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        ] {
            std::fs::write(&path, &message).unwrap();
            assert_eq!(of_file(&path).unwrap(), (digest.to_string(), message.len() as u64));
            assert!(is_one(digest));
        }
        for text in ["", "ba7816bf", &"g".repeat(64), &"A".repeat(64)] {
            assert!(!is_one(text), "{text}");
        }
    }
}
