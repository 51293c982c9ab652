//! Deposits of nodes that are reserved: what they need may have risen since, by the chain's word, and
//! the wallet may have paid for something else.

use std::collections::BTreeSet;

use super::builder::PlanBuilder;
use super::money;
use crate::api::conditions::Reason;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::money::Uact;

/// The reserved nodes whose deposit the wallet does not have, which is told. Those whose transaction
/// is on its way come first, then those with lower numbers.
pub fn unpaid(builder: &mut PlanBuilder<'_>) -> BTreeSet<IncarnationName> {
    let Some(chain) = builder.input.inventory.chain.present() else { return BTreeSet::new() };
    let reserved = builder.live().into_iter();
    let reserved = reserved.filter(|(_, i)| !chain.deployments.contains_key(&i.dseq));
    let (sent, waiting): (Vec<_>, Vec<_>) =
        reserved.partition(|(_, i)| builder.input.inventory.pending.contains(&i.dseq));
    let deposit = |i: &Incarnation| money::deposit(builder.input, i.ordinal, i.max_price);
    let mut left = chain.balance.saturating_sub(sent.iter().map(|(_, i)| deposit(i)).sum());
    let (mut unpaid, mut needed) = (BTreeSet::new(), Uact(0));
    for (name, incarnation) in waiting {
        let deposit = deposit(&incarnation);
        if left >= deposit {
            left = left.saturating_sub(deposit);
        } else {
            needed = needed + deposit;
            unpaid.insert(name);
        }
    }
    if !unpaid.is_empty() {
        let names: Vec<_> = unpaid.iter().map(|name| name.0.as_str()).collect();
        let message = format!(
            "the wallet {} holds {}, and the deposits of {}, which are reserved, need {needed} (the chain asks for {} or more each); nothing was created for them: fund the wallet",
            builder.input.constants.owner,
            chain.balance,
            names.join(", "),
            chain.min_deposit
        );
        builder.problem(Reason::WalletBalanceLow, message);
    }
    unpaid
}
