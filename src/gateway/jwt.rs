//! Tokens for gateways: each is good for one provider, one lease, one kind of call and two minutes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::model::ids::LeaseId;
use crate::model::time::UnixMs;

/// Signs bytes with the account's secp256k1 key: SHA-256, low S, `r || s`.
pub type Sign = Arc<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// Gateways allow no leeway, so a token starts in the past of a clock that is a little ahead.
const BACK_DATED: Duration = Duration::from_secs(10);
/// A provider can replay a token until it ends, though only against itself.
const LIFE: Duration = Duration::from_mins(2);
/// A token must name services, but no gateway compares them: ours is called this.
const SERVICE: &str = "redis";

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Bring a manifest.
    SendManifest,
    /// Read the state of the lease.
    Status,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::SendManifest => "send-manifest",
            Self::Status => "status",
        }
    }
}

/// The account that signs tokens.
#[derive(Clone)]
pub struct Issuer {
    address: String,
    sign: Sign,
}

impl Issuer {
    /// An account by its address, with its way to sign.
    #[must_use]
    pub fn new(address: String, sign: Sign) -> Self {
        Self { address, sign }
    }

    /// A token for one kind of call about one lease at one provider.
    #[must_use]
    pub fn token(&self, provider: &str, lease: &LeaseId, scope: Scope, now: UnixMs) -> String {
        let from = (now.0 / 1000).saturating_sub(BACK_DATED.as_secs());
        let claims = json!({
            "iss": self.address,
            "iat": from,
            "nbf": from,
            "exp": from + LIFE.as_secs(),
            "version": "v1",
            "leases": { "access": "granular", "permissions": [{
                "provider": provider,
                "access": "granular",
                "deployments": [{ "dseq": lease.dseq, "gseq": lease.gseq, "oseq": lease.oseq, "scope": [scope.as_str()], "services": [SERVICE] }],
            }]},
        });
        let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"ES256K","typ":"JWT"}"#);
        let body = URL_SAFE_NO_PAD.encode(claims.to_string());
        let input = format!("{head}.{body}");
        let signature = URL_SAFE_NO_PAD.encode((self.sign)(input.as_bytes()));
        format!("{input}.{signature}")
    }
}

impl fmt::Debug for Issuer {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_one_call_about_one_lease() {
        let issuer = Issuer::new("akash1me".into(), Arc::new(|_| [7; 64]));
        let lease = LeaseId {
            owner: "akash1me".into(),
            dseq: 42,
            gseq: 1,
            oseq: 3,
            provider: "akash1p".into(),
        };
        let token = issuer.token("akash1p", &lease, Scope::Status, UnixMs(1_000_000_999));
        let parts: Vec<Vec<u8>> =
            token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        let claims: serde_json::Value = serde_json::from_slice(&parts[1]).unwrap();
        assert_eq!(parts[2], [7; 64]);
        assert_eq!(
            claims,
            json!({
                "iss": "akash1me", "iat": 999_990, "nbf": 999_990, "exp": 1_000_110, "version": "v1",
                "leases": {"access": "granular", "permissions": [{"provider": "akash1p", "access": "granular",
                    "deployments": [{"dseq": 42, "gseq": 1, "oseq": 3, "scope": ["status"], "services": ["redis"]}]}]},
            })
        );
    }
}
