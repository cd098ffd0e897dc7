//! What the targets share: a request without a connection, an account, and the server that some of them talk to.

pub mod account;
pub mod operations;
pub mod service;

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use keyward::guard::principal::Principal;
use keyward::http::request::Request;

/// A request as handlers see it, from nobody.
pub fn request(headers: HeaderMap, query: Option<&str>, body: &[u8]) -> Request {
    Request {
        id: HeaderValue::from_static("fuzz"),
        headers,
        parameters: Default::default(),
        query: query.map(str::to_string),
        body: Ok(Bytes::copy_from_slice(body)),
        principal: Principal::Anonymous,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}
