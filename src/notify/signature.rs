//! By which a receiver knows that a message is the operator's, and fresh.

use hkdf::hmac::{Hmac, Mac as _};
use sha2::Sha256;

/// `t=UNIX,v1=HEX`: HMAC-SHA256 of the secret over the time in decimal, a dot, and the body.
pub(super) fn signature(secret: &[u8], unix: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length is taken");
    mac.update(unix.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={unix},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_other_tools_make_of_the_same() {
        // printf '%s' '1795000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        assert_eq!(
            signature(b"0123456789abcdef", 1_795_000_000, br#"{"a":1}"#),
            "t=1795000000,v1=cc265a2e718683fd617b6fdc65ca0fc0337f32c303412aae789c1fa3d7509f37"
        );
    }
}
