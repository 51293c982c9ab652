//! What Sentinel answers, in the protocol that the client chose.

use redis_protocol::bytes::BytesMut;
use redis_protocol::error::RedisProtocolError;
use redis_protocol::{resp2, resp3};

/// Version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What every client begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// An answer, or what a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(&'static str),
    /// `-ERR ...`
    Error(String),
    /// A number.
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// Nothing.
    Nil,
    /// A list.
    Array(Vec<Reply>),
    /// Names with values; a flat list before RESP3.
    Map(Vec<(&'static str, Reply)>),
    /// What nobody asked for; a list before RESP3.
    Push(Vec<Reply>),
}

impl Reply {
    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bulk(text.into().into_bytes())
    }

    /// Writes it behind what is in `buffer` already.
    pub fn write(
        &self,
        protocol: Protocol,
        buffer: &mut BytesMut,
    ) -> Result<(), RedisProtocolError> {
        match protocol {
            Protocol::Resp2 => resp2::encode::extend_encode(buffer, &self.resp2(), false).map(drop),
            Protocol::Resp3 => {
                resp3::encode::complete::extend_encode(buffer, &self.resp3(), false).map(drop)
            }
        }
    }

    fn resp2(&self) -> resp2::types::BytesFrame {
        use resp2::types::BytesFrame as Frame;
        let bulk = |text: &str| Frame::BulkString(text.as_bytes().to_vec().into());
        match self {
            Self::Simple(text) => Frame::SimpleString((*text).into()),
            Self::Error(text) => Frame::Error(text.as_str().into()),
            Self::Integer(number) => Frame::Integer(*number),
            Self::Bulk(bytes) => Frame::BulkString(bytes.clone().into()),
            Self::Nil => Frame::Null,
            Self::Array(all) | Self::Push(all) => {
                Frame::Array(all.iter().map(Self::resp2).collect())
            }
            Self::Map(all) => Frame::Array(
                all.iter().flat_map(|(name, value)| [bulk(name), value.resp2()]).collect(),
            ),
        }
    }

    fn resp3(&self) -> resp3::types::BytesFrame {
        use resp3::types::BytesFrame as Frame;
        let attributes = None;
        let blob = |bytes: Vec<u8>| Frame::BlobString { data: bytes.into(), attributes: None };
        match self {
            Self::Simple(text) => Frame::SimpleString { data: (*text).into(), attributes },
            Self::Error(text) => Frame::SimpleError { data: text.as_str().into(), attributes },
            Self::Integer(number) => Frame::Number { data: *number, attributes },
            Self::Bulk(bytes) => blob(bytes.clone()),
            Self::Nil => Frame::Null,
            Self::Array(all) => {
                Frame::Array { data: all.iter().map(Self::resp3).collect(), attributes }
            }
            Self::Push(all) => {
                Frame::Push { data: all.iter().map(Self::resp3).collect(), attributes }
            }
            Self::Map(all) => Frame::Map {
                data: all
                    .iter()
                    .map(|(name, value)| (blob(name.as_bytes().to_vec()), value.resp3()))
                    .collect(),
                attributes,
            },
        }
    }
}
