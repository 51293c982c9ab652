//! What `operator --check` says of the money: that it does for one node, from create to close, and
//! that grants of other accounts exist.

use std::time::Duration;

use super::run::Finding;
use crate::mesh::MeshControl;
use crate::model::chain::ChainView;
use crate::model::funds::Grant;
use crate::model::ids::InstallationId;
use crate::model::mesh::MeshView;
use crate::model::money::{Uact, akt};
use crate::plan::GasPrice;

/// A locked tailnet, as far as a device of ours shows it: nodes join with nobody there to sign them.
pub fn lock(view: &MeshView) -> Option<Finding> {
    let device = view.devices.iter().find(|device| device.unsigned)?;
    let why = format!(
        "the tailnet is locked and nobody has signed the key of {}, so that no other device hears it; nodes cannot be signed before they join, so turn the lock off (`tailscale lock disable`), or sign each with `tailscale lock sign`",
        device.hostname
    );
    Some(("tailnet lock", Err(why)))
}

/// A key that is minted to see whether that is allowed ends by itself after this.
const KEY_LIFE: Duration = Duration::from_mins(5);

/// Whether a key for a node with this tag can be minted; it is revoked at once.
pub async fn minting(mesh: &dyn MeshControl, installation: &InstallationId, tag: &str) -> Finding {
    let description = format!("akash-redis {installation} check");
    let found = match mesh.mint(&description, tag, KEY_LIFE).await {
        Ok(key) => match mesh.revoke(&key.id).await {
            Ok(()) => Ok(format!("a key with {tag} was minted and revoked")),
            Err(error) => Err(format!(
                "a key with {tag} was minted and could not be revoked ({error}); it ends by itself in {} min",
                KEY_LIFE.as_secs() / 60
            )),
        },
        Err(error) => Err(error.to_string()),
    };
    ("minting", found)
}

/// The wallet, and the grants where there are some.
pub fn wallet(view: &ChainView, owner: &str, gas_price: GasPrice) -> Vec<Finding> {
    let funds = &view.funds;
    let (deposit, fees) = (view.min_deposit, gas_price.of_a_node());
    let mut findings = Vec::new();
    let mut lacks = Vec::new();
    if funds.treasury.is_none() && view.balance < deposit {
        lacks.push(format!("{}, less than one deposit of {deposit}", view.balance));
    }
    if funds.fee_grant.is_none() && view.fee_balance < fees {
        let has = akt(view.fee_balance);
        lacks.push(format!("{has} for fees, less than the {} that one node takes", akt(fees)));
    }
    findings.push((
        "wallet",
        if lacks.is_empty() {
            Ok(format!("{owner} holds {} and {} for fees", funds.own_act, akt(funds.own_uakt)))
        } else {
            Err(format!("{owner} holds {}; send it coins", lacks.join(", and ")))
        },
    ));
    if let Some(treasury) = &funds.treasury {
        let amount = |uact| Uact(uact).to_string();
        findings.push(("treasury", grant(view, treasury, deposit.0, amount, "one deposit")));
    }
    if let Some(fee_grant) = &funds.fee_grant {
        findings.push(("fee grant", grant(view, fee_grant, fees, akt, "the fees of one node")));
    }
    findings
}

fn grant(
    view: &ChainView,
    grant: &Grant,
    least: u64,
    amount: impl Fn(u64) -> String,
    what: &str,
) -> Result<String, String> {
    let granter = &grant.granter;
    if let Some(why) = grant.problem(view.block_time) {
        return Err(format!("{granter} {why}; docs/guide/money.md has the command that makes one"));
    }
    let (has, needed) = (grant.available(view.block_time), amount(least));
    let limit = grant.terms.as_ref().and_then(|terms| terms.limit);
    let limit =
        limit.map_or_else(|| "no limit".to_owned(), |left| format!("{} left", amount(left)));
    let until = grant.expires().map_or_else(|| "for ever".to_owned(), |at| format!("until {at}"));
    let shown = format!("{granter} holds {}, its grant has {limit}, {until}", amount(grant.holds));
    if has < least {
        return Err(format!("{shown}: less than {what}, {needed}; fund it or raise the limit"));
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use async_trait::async_trait;

    use super::*;
    use crate::mesh::{MeshError, MintedKey};
    use crate::model::funds::{Funds, GrantTerms};
    use crate::model::ids::IncarnationName;
    use crate::model::mesh::Device;
    use crate::model::time::UnixMs;

    const PRICE: GasPrice = GasPrice(25_000);

    fn view(own: (u64, u64), funds: Funds) -> ChainView {
        let now = UnixMs(1000);
        let of = |grant: &Option<Grant>, own| grant.as_ref().map_or(own, |g| g.available(now));
        ChainView {
            block_time: now,
            min_deposit: Uact(500_000),
            balance: Uact(of(&funds.treasury, own.0)),
            fee_balance: of(&funds.fee_grant, own.1),
            funds: Funds { own_act: Uact(own.0), own_uakt: own.1, ..funds },
            ..ChainView::default()
        }
    }

    #[allow(clippy::unnecessary_wraps, reason = "what fills a field has its type")]
    fn given(holds: u64, limit: u64, expires: u64) -> Option<Grant> {
        let expires = Some(UnixMs(expires));
        let terms = Some(GrantTerms { limit: Some(limit), expires, refuses: Vec::new() });
        Some(Grant { granter: "akash1t".into(), holds, terms })
    }

    /// What fails, with its words.
    fn failed(view: &ChainView) -> Vec<(&'static str, String)> {
        let findings = wallet(view, "akash1me", PRICE);
        findings.into_iter().filter_map(|(what, found)| Some((what, found.err()?))).collect()
    }

    /// A control API that mints, or revokes, or does not.
    struct Api {
        mints: bool,
        revokes: bool,
        asked: std::sync::Mutex<Vec<String>>,
    }

    impl Api {
        fn does(&self, does: bool, what: String) -> Result<(), MeshError> {
            self.asked.lock().unwrap().push(what.clone());
            if does {
                return Ok(());
            }
            Err(MeshError::Refused { what, status: 403, message: "no".into() })
        }
    }

    #[async_trait]
    impl MeshControl for Api {
        async fn read(
            &self,
            _: &InstallationId,
            _: &BTreeSet<String>,
        ) -> Result<MeshView, MeshError> {
            Ok(MeshView::default())
        }

        async fn mint(&self, text: &str, tag: &str, _: Duration) -> Result<MintedKey, MeshError> {
            self.does(self.mints, format!("mint {text} with {tag}"))?;
            Ok(MintedKey { id: "k1".into(), secret: "s".into() })
        }

        async fn revoke(&self, key: &str) -> Result<(), MeshError> {
            self.does(self.revokes, format!("revoke {key}"))
        }

        async fn set_tags(&self, _: &str, _: &[String]) -> Result<(), MeshError> {
            panic!("no device is touched")
        }

        async fn delete_device(&self, _: &str) -> Result<(), MeshError> {
            panic!("no device is touched")
        }
    }

    #[tokio::test]
    async fn a_key_that_is_minted_to_see_whether_it_can_be_is_revoked() {
        let installation = InstallationId("tzgtac".into());
        for (mints, revokes, good, says) in [
            (true, true, true, "was minted and revoked"),
            (true, false, false, "could not be revoked"),
            (false, true, false, "refused mint akash-redis tzgtac check with tag:a"),
        ] {
            let api = Api { mints, revokes, asked: std::sync::Mutex::default() };
            let (_, found) = minting(&api, &installation, "tag:a").await;
            let (is_good, text) = (found.is_ok(), found.unwrap_or_else(|why| why));
            assert!(is_good == good && text.contains(says), "{text}");
            let asked = api.asked.lock().unwrap().clone();
            assert_eq!(asked.contains(&"revoke k1".to_owned()), mints, "{asked:?}");
            // Nobody takes it for the key of a node.
            let node =
                IncarnationName::from_key_description("akash-redis tzgtac check", &installation);
            assert_eq!(node, None);
        }
    }

    #[test]
    fn a_locked_tailnet_is_said() {
        let device = |unsigned| Device {
            id: "n1".into(),
            hostname: "cache-0-x7k2-tzgtac".into(),
            name: String::new(),
            ip: String::new(),
            tags: Vec::new(),
            created: None,
            multiple_connections: false,
            unsigned,
        };
        let of = |unsigned| MeshView { devices: vec![device(unsigned)], ..MeshView::default() };
        assert_eq!(lock(&of(false)), None);
        let (_, found) = lock(&of(true)).expect("a finding");
        assert!(found.unwrap_err().contains("nobody has signed the key of cache-0-x7k2-tzgtac"));
    }

    #[test]
    fn the_wallet_pays_for_a_whole_node() {
        let life = PRICE.of_a_node();
        assert_eq!(failed(&view((500_000, life), Funds::default())), []);
        // One transaction is not enough.
        let poor = failed(&view((500_000, 5_000), Funds::default()));
        assert!(poor[0].1.contains("holds 0.005akt for fees"), "{poor:?}");
        let poor = failed(&view((499_999, life), Funds::default()));
        assert!(poor[0].1.contains("less than one deposit of 0.5act"), "{poor:?}");
    }

    #[test]
    fn grants_exist_last_and_do_for_a_whole_node() {
        let life = PRICE.of_a_node();
        let both = |treasury, fee_grant| {
            failed(&view((0, 0), Funds { treasury, fee_grant, ..Funds::default() }))
        };
        let good = || given(900_000, 500_000, 2000);
        assert_eq!(both(good(), given(life, life, 2000)), [], "own coins do not matter");
        let none = Some(Grant { granter: "akash1t".into(), holds: 9_000_000, terms: None });
        for (treasury, fees, what, words) in [
            (none.clone(), good(), "treasury", "has made no such grant"),
            (good(), none, "fee grant", "has made no such grant"),
            (given(900_000, 500_000, 1000), good(), "treasury", "ended at"),
            (given(900_000, 499_999, 2000), good(), "treasury", "less than one deposit, 0.5act"),
            (given(499_999, 900_000, 2000), good(), "treasury", "less than one deposit, 0.5act"),
            (good(), given(life, life - 1, 2000), "fee grant", "less than the fees of one node"),
        ] {
            let found = both(treasury, fees);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].0 == what && found[0].1.contains(words), "{found:?}");
        }
    }
}
