//! What `operator --check` says of the money: that it does for one node, from create to close, and
//! that grants of other accounts exist.

use super::run::Finding;
use crate::model::chain::ChainView;
use crate::model::funds::Grant;
use crate::model::money::{Uact, akt};
use crate::plan::GasPrice;

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
    use super::*;
    use crate::model::funds::{Funds, GrantTerms};
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
