//! How a gateway judges tokens: the same answers as the real one, strange ones included.

use std::str::FromStr as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cosmrs::AccountId;
use k256::ecdsa::signature::Verifier as _;
use k256::ecdsa::{Signature, VerifyingKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Why a caller is refused, with the words of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The header is not `Bearer <token>`.
    #[error("invalid authorization header")]
    Header,
    /// Not a token, or not signed by the account it names.
    #[error("JWT is invalid")]
    Token,
    /// A good signature under claims that do not hold, expired ones among them.
    #[error("JWT has invalid claims")]
    Claims,
    /// Nobody, or somebody without the right.
    #[error("unauthorized access")]
    Unauthorized,
}

impl Denied {
    /// HTTP status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Header | Self::Claims => 400,
            Self::Token | Self::Unauthorized => 401,
        }
    }
}

/// What a call needs a token for.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Scope of the route.
    pub scope: &'a str,
    /// This gateway's provider.
    pub provider: &'a str,
    /// Deployment in the path.
    pub dseq: u64,
    /// Group and order in the path; a manifest has none.
    pub order: Option<(u32, u32)>,
}

/// Takes the token out of an Authorization header; `None` when nothing was given.
pub fn bearer(header: Option<&str>) -> Result<Option<&str>, Denied> {
    let words: Vec<&str> = header.unwrap_or("").split_whitespace().collect();
    match words[..] {
        [] => Ok(None),
        [scheme, token] if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token)),
        _ => Err(Denied::Header),
    }
}

/// A token that was read and not yet proven.
#[derive(Debug)]
pub struct Unproven {
    claims: Claims,
    amino: bool,
    input: String,
    signature: Vec<u8>,
}

impl Unproven {
    /// Reads a token.
    pub fn read(token: &str) -> Result<Self, Denied> {
        let (input, signature) = token.rsplit_once('.').ok_or(Denied::Token)?;
        let (head, body) = input.split_once('.').ok_or(Denied::Token)?;
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Denied::Token);
        let head: Head = serde_json::from_slice(&part(head)?).map_err(|_| Denied::Token)?;
        let claims: Claims = serde_json::from_slice(&part(body)?).map_err(|_| Denied::Token)?;
        let amino = match head.alg.as_str() {
            "ES256K" => false,
            "ES256KADR36" => true,
            _ => return Err(Denied::Token),
        };
        if !is_account(&claims.iss.to_ascii_lowercase()) {
            return Err(Denied::Token);
        }
        Ok(Self { claims, amino, input: input.to_owned(), signature: part(signature)? })
    }

    /// Account whose key must have signed.
    #[must_use]
    pub fn account(&self) -> String {
        self.claims.iss.to_ascii_lowercase()
    }

    /// Checks signature, then times and rights; `now` in seconds.
    pub fn prove(self, public_key: &[u8], now: f64) -> Result<Claims, Denied> {
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| Denied::Token)?;
        let signature = Signature::from_slice(&self.signature).map_err(|_| Denied::Token)?;
        if signature.normalize_s().is_some() {
            return Err(Denied::Token);
        }
        let signed =
            if self.amino { amino_document(&self.input, &self.claims.iss) } else { self.input };
        key.verify(signed.as_bytes(), &signature).map_err(|_| Denied::Token)?;
        if self.claims.hold(now) { Ok(self.claims) } else { Err(Denied::Claims) }
    }
}

/// The document that browser wallets sign in place of the text itself.
fn amino_document(text: &str, signer: &str) -> String {
    let data = STANDARD.encode(text);
    format!(
        r#"{{"account_number":"0","chain_id":"","fee":{{"amount":[],"gas":"0"}},"memo":"","msgs":[{{"type":"sign/MsgSignData","value":{{"data":"{data}","signer":"{signer}"}}}}],"sequence":"0"}}"#
    )
}

fn is_account(text: &str) -> bool {
    AccountId::from_str(text).is_ok_and(|id| id.prefix() == "akash")
}

#[derive(Deserialize)]
struct Head {
    alg: String,
}

/// Claims of a proven token.
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    /// The account that signed, as written.
    pub iss: String,
    iat: Option<Seconds>,
    nbf: Option<Seconds>,
    exp: Option<Seconds>,
    #[serde(default)]
    version: String,
    #[serde(default)]
    leases: Leases,
}

/// A time as number or as text, with or without fractions.
#[derive(Clone, Copy, Debug)]
struct Seconds(f64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        match Form::deserialize(from)? {
            Form::Number(seconds) => Ok(Self(seconds)),
            Form::Text(text) => text.parse().map(Self).map_err(D::Error::custom),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Leases {
    #[serde(default)]
    access: String,
    scope: Option<Vec<String>>,
    permissions: Option<Vec<Permission>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Permission {
    #[serde(default, deserialize_with = "account_or_nothing")]
    provider: String,
    #[serde(default)]
    access: String,
    scope: Option<Vec<String>>,
    deployments: Option<Vec<Grant>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Grant {
    #[serde(default)]
    dseq: u64,
    #[serde(default)]
    gseq: u32,
    #[serde(default)]
    oseq: u32,
    scope: Option<Vec<String>>,
    services: Option<Vec<String>>,
}

fn account_or_nothing<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() || is_account(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom("not an account"))
    }
}

const SCOPES: [&str; 10] = [
    "send-manifest",
    "get-manifest",
    "logs",
    "shell",
    "events",
    "status",
    "restart",
    "hostname-migrate",
    "ip-migrate",
    "attestation",
];

/// Some scopes, all known, none twice.
fn good(scope: Option<&Vec<String>>) -> bool {
    let Some(scope) = scope else { return false };
    let known =
        |(at, one): (usize, &String)| SCOPES.contains(&one.as_str()) && !scope[..at].contains(one);
    !scope.is_empty() && scope.iter().enumerate().all(known)
}

fn none(scope: Option<&Vec<String>>) -> bool {
    scope.is_none_or(Vec::is_empty)
}

fn has(scope: Option<&Vec<String>>, wanted: &str) -> bool {
    scope.is_some_and(|scope| scope.iter().any(|one| one == wanted))
}

impl Claims {
    /// No leeway on either end; `iat` must be there, and may lie ahead.
    fn hold(&self, now: f64) -> bool {
        let (Some(_), Some(from), Some(until)) = (self.iat, self.nbf, self.exp) else {
            return false;
        };
        from.0 <= now && now < until.0 && self.version == "v1" && self.leases.hold()
    }

    /// Whether these claims allow a call.
    #[must_use]
    pub fn allow(&self, need: &Need<'_>) -> bool {
        // A name in capitals signs, but owns nothing.
        self.iss == self.iss.to_ascii_lowercase() && self.leases.allow(need)
    }
}

impl Leases {
    fn hold(&self) -> bool {
        match self.access.as_str() {
            "full" => none(self.scope.as_ref()) && self.permissions.is_none(),
            "scoped" => good(self.scope.as_ref()) && self.permissions.is_none(),
            "granular" => {
                let permissions = self.permissions.as_deref().unwrap_or_default();
                let once = |(at, one): (usize, &Permission)| {
                    permissions[..at].iter().all(|earlier| earlier.provider != one.provider)
                };
                none(self.scope.as_ref())
                    && !permissions.is_empty()
                    && permissions.iter().all(Permission::holds)
                    && permissions.iter().enumerate().all(once)
            }
            _ => false,
        }
    }

    fn allow(&self, need: &Need<'_>) -> bool {
        match self.access.as_str() {
            "full" => true,
            "scoped" => has(self.scope.as_ref(), need.scope),
            _ => self
                .permissions
                .iter()
                .flatten()
                .any(|one| one.provider == need.provider && one.allows(need)),
        }
    }
}

impl Permission {
    fn holds(&self) -> bool {
        let deployments = self.deployments.as_deref().unwrap_or_default();
        !self.provider.is_empty()
            && match self.access.as_str() {
                "full" => none(self.scope.as_ref()) && deployments.is_empty(),
                "scoped" => good(self.scope.as_ref()) && deployments.is_empty(),
                "granular" => {
                    none(self.scope.as_ref())
                        && !deployments.is_empty()
                        && deployments.iter().all(Grant::holds)
                }
                _ => false,
            }
    }

    fn allows(&self, need: &Need<'_>) -> bool {
        match self.access.as_str() {
            "full" => true,
            "scoped" => has(self.scope.as_ref(), need.scope),
            _ => self.deployments.iter().flatten().any(|grant| grant.allows(need)),
        }
    }
}

impl Grant {
    fn holds(&self) -> bool {
        self.dseq > 0
            && good(self.scope.as_ref())
            && self.services.as_ref().is_some_and(|services| !services.is_empty())
            && (self.oseq == 0 || self.gseq > 0)
    }

    /// Services are not compared, and for a manifest neither are group and order.
    fn allows(&self, need: &Need<'_>) -> bool {
        let fits = |own: u32, asked: u32| own == 0 || own == asked;
        self.dseq == need.dseq
            && has(self.scope.as_ref(), need.scope)
            && need.order.is_none_or(|(gseq, oseq)| fits(self.gseq, gseq) && fits(self.oseq, oseq))
    }
}
