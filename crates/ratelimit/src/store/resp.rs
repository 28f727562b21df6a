//! Redis' protocol (RESP 2) in the part that counting needs: commands out, integers and sentences in. No IO.

use bytes::{Buf as _, BytesMut};

/// Longest line or text of an answer.
const LONGEST: usize = 64 << 10;

/// An answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// A number.
    Integer(i64),
    /// `OK` and the like.
    Text(String),
    /// Redis refuses; its words.
    Error(String),
}

/// The bytes are no answer of Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) String);

/// Appends a command.
pub(super) fn command(out: &mut Vec<u8>, parts: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes one answer from the front of `buffer`; absent: it is not there as a whole yet.
pub(super) fn reply(buffer: &mut BytesMut) -> Result<Option<Reply>, Malformed> {
    let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") else {
        return match buffer.len() > LONGEST {
            true => Err(Malformed("an answer without an end".to_owned())),
            false => Ok(None),
        };
    };
    let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let Some(kind) = line.chars().next() else {
        return Err(Malformed("an empty answer".to_owned()));
    };
    let rest = &line[kind.len_utf8()..];
    let number = || {
        rest.parse::<i64>()
            .map_err(|_| Malformed(format!("an answer that begins with {line:?}")))
    };
    let answer = match kind {
        ':' => Reply::Integer(number()?),
        '+' => Reply::Text(rest.to_owned()),
        '-' => Reply::Error(rest.to_owned()),
        '$' => {
            let length = number()?;
            let Ok(length) = usize::try_from(length) else {
                buffer.advance(end + 2);
                return Ok(Some(Reply::Text(String::new())));
            };
            if length > LONGEST {
                return Err(Malformed(format!("an answer of {length} bytes")));
            }
            if buffer.len() < end + 2 + length + 2 {
                return Ok(None);
            }
            let text = &buffer[end + 2..end + 2 + length];
            let text = String::from_utf8_lossy(text).into_owned();
            buffer.advance(end + 2 + length + 2);
            return Ok(Some(Reply::Text(text)));
        }
        _ => return Err(Malformed(format!("an answer that begins with {line:?}"))),
    };
    buffer.advance(end + 2);
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_come() {
        let all = b":12\r\n+OK\r\n-ERR no\r\n$3\r\nabc\r\n$-1\r\n";
        let mut buffer = BytesMut::new();
        let mut read = Vec::new();
        for byte in all {
            buffer.extend_from_slice(&[*byte]);
            while let Some(one) = reply(&mut buffer).expect("valid") {
                read.push(one);
            }
        }
        let text = |t: &str| Reply::Text(t.to_owned());
        let want = [
            Reply::Integer(12),
            text("OK"),
            Reply::Error("ERR no".to_owned()),
            text("abc"),
            text(""),
        ];
        assert_eq!(read, want);
        for bad in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b":x\r\n",
            b"\r\n",
            b"$9999999\r\n",
        ] {
            assert!(reply(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn commands_say_the_length_of_each_part() {
        let mut out = Vec::new();
        command(&mut out, &["INCRBY", "a b", "2"]);
        assert_eq!(out, b"*3\r\n$6\r\nINCRBY\r\n$3\r\na b\r\n$1\r\n2\r\n");
    }
}
