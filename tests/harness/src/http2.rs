//! HTTP/2 frame by frame (RFC 9113), with headers that refer to nothing (RFC 7541), for tests that say exactly what is on a
//! connection.

use std::io::{self, Read};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of frames, and flags (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

// Settings (§6.5.2) and reasons (§7).
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The stream and the status of the answer whose head this is.
    #[track_caller]
    pub fn answered(&self) -> (u32, u16) {
        assert_eq!((self.kind, self.flags & END_HEADERS), (HEADERS, END_HEADERS), "{self:?}");
        (self.stream, status(&self.payload))
    }

    /// Why a stream or the connection ended.
    pub fn reason(&self) -> u32 {
        let start = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[start..start + 4].try_into().unwrap())
    }
}

pub fn read_frame(reader: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 9];
    reader.read_exact(&mut head)?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    reader.read_exact(&mut payload)?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Ok(Frame { kind: head[3], flags: head[4], stream, payload })
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The payload of a frame of settings.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}

/// Headers as a block of literals that are not put into the table (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(0, name, value)).collect()
}

/// A literal that is put into the table (RFC 7541 §6.2.1).
pub fn indexed(name: &str, value: &str) -> Vec<u8> {
    literal(0x40, name, value)
}

fn literal(kind: u8, name: &str, value: &str) -> Vec<u8> {
    [vec![kind], text(name), text(value)].concat()
}

/// RFC 7541 §5.2, with a length of a prefix of seven bits (§5.1).
fn text(text: &str) -> Vec<u8> {
    if text.len() < 127 {
        return [&[text.len() as u8], text.as_bytes()].concat();
    }
    let mut encoded = vec![127];
    let mut rest = text.len() - 127;
    while rest >= 128 {
        encoded.push((rest % 128 + 128) as u8);
        rest /= 128;
    }
    encoded.push(rest as u8);
    [&encoded, text.as_bytes()].concat()
}

/// The head of a request to the server named localhost.
pub fn head<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "https"), (":path", path), (":authority", "localhost")];
    block(&[&fields, more].concat())
}

/// The first field of an answer: from the static table, or digits (RFC 7541, appendices A and B).
#[track_caller]
pub fn status(block: &[u8]) -> u16 {
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    const IN_THE_TABLE: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    if block[0] & 0x80 != 0 {
        return IN_THE_TABLE[usize::from(block[0] & 0x7f) - 8];
    }
    assert_eq!(block[0] & 0x0f, 8, "{block:?}");
    let (is_packed, length) = (block[1] & 0x80 != 0, usize::from(block[1] & 0x7f));
    let value = &block[2..2 + length];
    if !is_packed {
        return str::from_utf8(value).unwrap().parse().unwrap();
    }
    let mut bits = value.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let digits = (0..3).map(|_| {
        let code = (0..5).fold(0, |code, _| code * 2 + bits.next().unwrap());
        // The digits 0 to 2 have five bits, the others six.
        if code < 3 { code } else { code * 2 + bits.next().unwrap() - 0x19 + 3 }
    });
    digits.fold(0, |status, digit| status * 10 + digit)
}
