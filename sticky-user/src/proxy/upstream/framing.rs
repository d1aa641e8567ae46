//! Where the body of an answer ends (RFC 9112, section 6). httparse reads what is text in it, the sizes of chunks and trailers.

use bytes::{Buf, Bytes, BytesMut};
use httparse::Status;

/// The longest line with a chunk's size; what else it says is for nobody.
const LINE: usize = 4096;

/// The most trailers, and the most bytes of them; they are read and not passed on.
const TRAILERS: usize = 64;
const TRAILER_BYTES: usize = 16 * 1024;

/// What of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// This many bytes.
    Length(u64),
    Chunked(Chunk),
    /// All until the connection ends.
    UntilClose,
}

/// What comes next of a body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Size,
    /// This many bytes, which are not all read yet.
    Data(u64),
    /// The end of a line behind the data.
    End,
    Trailers,
}

/// What is not HTTP in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum BadChunk {
    #[error("the size of a chunk is not valid")]
    Size,
    #[error("a chunk is longer than its size")]
    End,
    #[error("the trailers are not valid")]
    Trailers,
}

impl Framing {
    pub(super) const NONE: Self = Self::Length(0);

    pub(super) const fn is_over(self) -> bool {
        matches!(self, Self::NONE)
    }

    /// How many bytes are to come, where that is known.
    pub(super) const fn left(self) -> Option<u64> {
        if let Self::Length(left) = self { Some(left) } else { None }
    }

    /// The connection has ended: whether the body has.
    pub(super) fn close(&mut self) -> bool {
        if *self == Self::UntilClose {
            *self = Self::NONE;
        }
        self.is_over()
    }

    /// Takes the next piece out of what was `read`; `None`: there is none in it. What stands behind the piece and is no body
    /// goes with it, so that the end is seen with the last piece.
    pub(super) fn take(&mut self, read: &mut BytesMut) -> Result<Option<Bytes>, BadChunk> {
        let piece = match self {
            Self::Length(left) => cut(left, read),
            Self::UntilClose => (!read.is_empty()).then(|| read.split().freeze()),
            Self::Chunked(_) => {
                self.skip(read)?;
                let Self::Chunked(Chunk::Data(left)) = self else { return Ok(None) };
                let piece = cut(left, read);
                if *left == 0 {
                    *self = Self::Chunked(Chunk::End);
                    self.skip(read)?;
                }
                piece
            }
        };
        Ok(piece)
    }

    /// Reads what is between pieces of data, as far as it is there.
    fn skip(&mut self, read: &mut BytesMut) -> Result<(), BadChunk> {
        while let Self::Chunked(chunk) = *self {
            let next = match chunk {
                Chunk::Data(_) => None,
                Chunk::Size => size(read)?,
                Chunk::End => end(read)?,
                Chunk::Trailers if trailers(read)? => {
                    *self = Self::NONE;
                    return Ok(());
                }
                Chunk::Trailers => None,
            };
            let Some(next) = next else { return Ok(()) };
            *self = Self::Chunked(next);
        }
        Ok(())
    }
}

/// Up to as many bytes as are `left`.
fn cut(left: &mut u64, read: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(*left).map_or(read.len(), |left| left.min(read.len()));
    *left -= length as u64;
    (length > 0).then(|| read.split_to(length).freeze())
}

fn size(read: &mut BytesMut) -> Result<Option<Chunk>, BadChunk> {
    // httparse takes no digits for a zero.
    if read.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
        return Err(BadChunk::Size);
    }
    match httparse::parse_chunk_size(read).map_err(|_| BadChunk::Size)? {
        Status::Complete((line, _)) if line > LINE => Err(BadChunk::Size),
        Status::Complete((line, size)) => {
            read.advance(line);
            Ok(Some(if size == 0 { Chunk::Trailers } else { Chunk::Data(size) }))
        }
        Status::Partial if read.len() > LINE => Err(BadChunk::Size),
        Status::Partial => Ok(None),
    }
}

fn end(read: &mut BytesMut) -> Result<Option<Chunk>, BadChunk> {
    match &**read {
        [b'\r', b'\n', ..] => {
            read.advance(2);
            Ok(Some(Chunk::Size))
        }
        [] | [b'\r'] => Ok(None),
        _ => Err(BadChunk::End),
    }
}

/// Whether they have all come.
fn trailers(read: &mut BytesMut) -> Result<bool, BadChunk> {
    let mut room = [httparse::EMPTY_HEADER; TRAILERS];
    let length = match httparse::parse_headers(read, &mut room).map_err(|_| BadChunk::Trailers)? {
        Status::Complete((length, _)) => Some(length),
        Status::Partial => None,
    };
    if length.unwrap_or(read.len()) > TRAILER_BYTES {
        return Err(BadChunk::Trailers);
    }
    read.advance(length.unwrap_or(0));
    Ok(length.is_some())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: Framing = Framing::Chunked(Chunk::Size);

    /// The body of a stream that comes in pieces of this size, and what is left of the stream.
    fn body(framing: Framing, stream: &[u8], size: usize) -> Result<(Vec<u8>, Vec<u8>), BadChunk> {
        let (mut framing, mut read, mut body) = (framing, BytesMut::new(), Vec::new());
        let mut pieces = stream.chunks(size);
        while !framing.is_over() {
            match framing.take(&mut read)? {
                Some(piece) => {
                    assert!(!piece.is_empty());
                    body.extend_from_slice(&piece);
                }
                None if framing.is_over() => {}
                None => match pieces.next() {
                    Some(piece) => read.extend_from_slice(piece),
                    None => {
                        assert!(framing.close(), "{framing:?} is not over");
                    }
                },
            }
        }
        let rest = pieces.flatten().copied();
        Ok((body, read.iter().copied().chain(rest).collect()))
    }

    #[test]
    fn a_body_ends_where_it_says() {
        let chunks: &[u8] =
            b"3\r\nabc\r\n00A ; x=\"y\"\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\nnext";
        for size in 1..chunks.len() + 1 {
            assert_eq!(body(CHUNKED, chunks, size), Ok((b"abc0123456789".into(), b"next".into())));
            assert_eq!(body(CHUNKED, b"0\r\n\r\n", size), Ok((vec![], vec![])));
            let five = body(Framing::Length(5), b"12345next", size);
            assert_eq!(five, Ok((b"12345".into(), b"next".into())));
            assert_eq!(body(Framing::UntilClose, b"all", size), Ok((b"all".into(), vec![])));
            assert_eq!(body(Framing::NONE, b"next", size), Ok((vec![], b"next".into())));
        }
    }

    #[test]
    fn the_end_is_seen_with_the_last_piece() {
        let mut read = BytesMut::from(&b"2\r\nab\r\n0\r\n\r\n"[..]);
        let mut framing = CHUNKED;
        assert_eq!(framing.take(&mut read).unwrap().unwrap(), "ab");
        assert!(framing.is_over() && read.is_empty());
    }

    #[test]
    fn what_is_no_chunk() {
        let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(LINE));
        let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(TRAILERS + 1));
        let much = format!("0\r\nx: {}\r\n\r\n", "y".repeat(TRAILER_BYTES));
        for (stream, why) in [
            ("\r\n", BadChunk::Size),
            ("+3\r\nabc", BadChunk::Size),
            (" 3\r\nabc", BadChunk::Size),
            ("0x3\r\nabc", BadChunk::Size),
            ("3\nabc", BadChunk::Size),
            ("g\r\n", BadChunk::Size),
            ("10000000000000000\r\n", BadChunk::Size),
            (&long, BadChunk::Size),
            ("3\r\nabcd\r\n", BadChunk::End),
            ("3\r\nabc\n0\r\n\r\n", BadChunk::End),
            ("3\r\nabc\rx", BadChunk::End),
            ("0\r\nx y\r\n\r\n", BadChunk::Trailers),
            ("0\r\n\rx", BadChunk::Trailers),
            (&many, BadChunk::Trailers),
            (&much, BadChunk::Trailers),
        ] {
            for size in [1, 2, stream.len()] {
                assert_eq!(body(CHUNKED, stream.as_bytes(), size), Err(why), "{stream:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn chunks_of_any_size_in_pieces_of_any_size(
            chunks in vec(vec(any::<u8>(), 1..300), 0..20),
            size in 1_usize..700,
            next in vec(any::<u8>(), 0..20),
        ) {
            let mut stream = Vec::new();
            for chunk in &chunks {
                stream.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                stream.extend_from_slice(chunk);
                stream.extend_from_slice(b"\r\n");
            }
            stream.extend_from_slice(b"0\r\n\r\n");
            stream.extend_from_slice(&next);
            prop_assert_eq!(body(CHUNKED, &stream, size), Ok((chunks.concat(), next)));
        }
    }
}
