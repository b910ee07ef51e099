//! Paths with something to each, one after the other, in few bytes: of a path there is only what differs from the one
//! before.

use crate::bundle::memory::make_room;

/// Paths, each with some numbers and a text.
#[derive(Debug, Default)]
pub(super) struct PathLog<const NUMBERS: usize> {
    bytes: Vec<u8>,
    last: Vec<u8>,
}

impl<const NUMBERS: usize> PathLog<NUMBERS> {
    pub(super) fn push(&mut self, path: &[u8], numbers: [u64; NUMBERS], text: &[u8]) {
        let shared = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
        let rest = path.get(shared..).unwrap_or_default();
        // Numbers have ten bytes at most.
        make_room(&mut self.bytes, rest.len() + text.len() + 10 * (3 + NUMBERS));
        self.number(shared as u64);
        self.text(rest);
        for number in numbers {
            self.number(number);
        }
        self.text(text);
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
    }

    /// How many bytes it takes.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Says that nothing more comes.
    pub(super) fn close(&mut self) {
        self.last = vec![];
    }

    /// Seven bits in a byte, the lowest first; the eighth: more follow.
    fn number(&mut self, mut number: u64) {
        let low = |number: u64| u8::try_from(number & 0x7f).unwrap_or(0);
        while number > 0x7f {
            self.bytes.push(low(number) | 0x80);
            number >>= 7;
        }
        self.bytes.push(low(number));
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text);
    }

    /// Gives all to `take`, in their order.
    pub(super) fn each<E>(&self, mut take: impl FnMut(&[u8], [u64; NUMBERS], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let (mut rest, mut path) = (&*self.bytes, vec![]);
        while let Some((numbers, text)) = next(&mut rest, &mut path) {
            take(&path, numbers, text)?;
        }
        Ok(())
    }
}

fn next<'a, const NUMBERS: usize>(rest: &mut &'a [u8], path: &mut Vec<u8>) -> Option<([u64; NUMBERS], &'a [u8])> {
    path.truncate(usize::try_from(number(rest)?).ok()?);
    path.extend_from_slice(text(rest)?);
    let mut numbers = [0; NUMBERS];
    for place in &mut numbers {
        *place = number(rest)?;
    }
    Some((numbers, text(rest)?))
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_given_again() {
        let all: [(&[u8], [u64; 2], &[u8]); 7] = [
            (b"", [0, 1], b""),
            (b"a", [127, 128], b"text"),
            (b"a/b/c", [255, 256], &[0xff; 300]),
            (b"a/b/d", [16_383, 16_384], b""),
            (b"a/b", [u64::MAX, u64::MAX - 1], b"x"),
            (b"\xff", [1 << 63, 1 << 56], b"\0"),
            (b"a/b/c", [1 << 31, 1 << 32], b"y"),
        ];
        let mut log = PathLog::default();
        for (path, numbers, text) in all {
            log.push(path, numbers, text);
        }
        let mut given = vec![];
        let _ = log.each(|path, numbers, text| {
            given.push((path.to_vec(), numbers, text.to_vec()));
            Ok::<_, ()>(())
        });
        assert_eq!(given, all.map(|(path, numbers, text)| (path.to_vec(), numbers, text.to_vec())));
    }

    #[test]
    fn a_path_takes_what_is_new_in_it() {
        let mut log = PathLog::default();
        for number in 0..100_000 {
            log.push(format!("data/train/samples/{number:06}.jpeg").as_bytes(), [0o644], &[7; 32]);
        }
        assert!(log.size() < 100_000 * 46, "{}", log.size());
    }
}
