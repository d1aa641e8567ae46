//! What clients and backends of the benchmark say to each other: a question and an answer of fixed length, each perhaps
//! followed by data. As little work as TCP allows, so that the way between them is what is measured.

use std::net::Ipv4Addr;

use anyhow::Context as _;

/// Bytes of either head: about those of a small request of HTTP.
pub const HEAD: usize = 64;

/// A client's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub number: u64,
    /// Bytes that follow it.
    pub up: u32,
    /// Bytes that are to follow the answer.
    pub down: u32,
    /// The backend ends the connection after its answer.
    pub last: bool,
}

/// A backend's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// That of the question.
    pub number: u64,
    pub backend: Ipv4Addr,
    /// The client's address as the backend sees it.
    pub client: Ipv4Addr,
}

impl Question {
    pub fn bytes(&self) -> [u8; HEAD] {
        head(&[
            &self.number.to_be_bytes(),
            &self.up.to_be_bytes(),
            &self.down.to_be_bytes(),
            &[u8::from(self.last)],
        ])
    }

    pub fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        Ok(Self {
            number: u64::from_be_bytes(part(bytes, 0)?),
            up: u32::from_be_bytes(part(bytes, 8)?),
            down: u32::from_be_bytes(part(bytes, 12)?),
            last: part::<1>(bytes, 16)? != [0],
        })
    }
}

impl Answer {
    pub fn bytes(&self) -> [u8; HEAD] {
        head(&[&self.number.to_be_bytes(), &self.backend.octets(), &self.client.octets()])
    }

    pub fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        Ok(Self {
            number: u64::from_be_bytes(part(bytes, 0)?),
            backend: part::<4>(bytes, 8)?.into(),
            client: part::<4>(bytes, 12)?.into(),
        })
    }
}

fn head(parts: &[&[u8]]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
    head
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> anyhow::Result<[u8; N]> {
    Ok(bytes.get(at..at + N).context("a short head")?.try_into()?)
}
