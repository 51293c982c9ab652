//! What of a status is measured: it moves all the time while nothing happens, with each block and
//! with each report of a node, so that it is no reason to write a status.

use super::conditions::ConditionType;
use super::status::{Condition, Cost, NodeStatus, Status};

/// Conditions whose sentence has a measure in it: how long the money does.
const MEASURED: [ConditionType; 2] = [ConditionType::Funded, ConditionType::WalletRunway];

/// A status without what is measured, and without `Accepted`, which is the store's word about the
/// object and none about the cluster: two of them differ when something happened.
#[must_use]
pub fn without(status: &Status) -> Status {
    let mut status = status.clone();
    let Cost { max_per_month, limited_by, .. } = status.cost;
    status.cost = Cost { max_per_month, limited_by, ..Cost::default() };
    for node in &mut status.nodes {
        (node.lag_bytes, node.lag_seconds) = (None, None);
        (node.path, node.price_per_month) = (None, None);
    }
    status.conditions.retain(|condition| condition.kind != ConditionType::Accepted);
    for condition in status.conditions.iter_mut().filter(|c| MEASURED.contains(&c.kind)) {
        condition.message.clear();
    }
    status
}

/// Replaces what is measured by what is known of it now. The rest stays: it says what happened, and
/// was written when it did.
pub fn refresh(status: &mut Status, now: &Status) {
    let Cost { max_per_month, limited_by, .. } = std::mem::take(&mut status.cost);
    status.cost = Cost { max_per_month, limited_by, ..now.cost.clone() };
    for node in &mut status.nodes {
        let same = |other: &&NodeStatus| other.incarnation == node.incarnation;
        let Some(fresh) = now.nodes.iter().find(same) else { continue };
        (node.lag_bytes, node.lag_seconds) = (fresh.lag_bytes, fresh.lag_seconds);
        node.path.clone_from(&fresh.path);
        node.price_per_month.clone_from(&fresh.price_per_month);
    }
    for condition in status.conditions.iter_mut().filter(|c| MEASURED.contains(&c.kind)) {
        let of = |c: &Condition| (c.kind, c.status, c.reason);
        if let Some(fresh) = now.conditions.iter().find(|fresh| of(fresh) == of(condition)) {
            condition.message.clone_from(&fresh.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conditions::{ConditionStatus, Phase, Reason};
    use super::*;

    fn status(measure: u64) -> Status {
        let condition = |kind, reason| Condition {
            kind,
            status: ConditionStatus::True,
            reason,
            message: if MEASURED.contains(&kind) {
                format!("{measure} days")
            } else {
                "well".into()
            },
            ..Condition::default()
        };
        Status {
            epoch: 4,
            conditions: vec![
                condition(ConditionType::Ready, Reason::AllInSync),
                condition(ConditionType::Funded, Reason::EscrowFunded),
                condition(ConditionType::WalletRunway, Reason::WalletFunded),
            ],
            nodes: vec![NodeStatus {
                incarnation: "cache-0-a".into(),
                phase: Phase::Replica,
                lag_bytes: i64::try_from(measure).ok(),
                lag_seconds: Some(measure),
                path: Some(format!("direct, {measure} ms")),
                price_per_month: Some(format!("{measure}act")),
                ..NodeStatus::default()
            }],
            cost: Cost {
                per_month: format!("{measure}act"),
                max_per_month: "12act".into(),
                limited_by: "the manifest".into(),
                in_escrow: format!("{measure}act"),
                spent: format!("{measure}act"),
                deposit: format!("{measure}act"),
                runway: format!("{measure} days"),
            },
            ..Status::default()
        }
    }

    #[test]
    fn what_moves_with_each_block_is_no_difference_and_whatever_happens_is_one() {
        assert_eq!(without(&status(1)), without(&status(2)));
        let mut judged = status(2);
        judged.conditions.push(Condition { kind: ConditionType::Accepted, ..Condition::default() });
        assert_eq!(without(&status(1)), without(&judged));
        let happened: [fn(&mut Status); 6] = [
            |s| s.epoch = 5,
            |s| s.nodes[0].phase = Phase::Master,
            |s| s.cost.max_per_month = "9act".into(),
            |s| s.conditions[0].message = "another".into(),
            |s| s.conditions[1].reason = Reason::EscrowLow,
            |s| s.conditions[2].status = ConditionStatus::False,
        ];
        for (at, happens) in happened.into_iter().enumerate() {
            let mut other = status(1);
            happens(&mut other);
            assert_ne!(without(&status(1)), without(&other), "{at}");
        }
    }

    #[test]
    fn whoever_asks_the_operator_sees_what_is_measured_now() {
        let mut seen = status(1);
        refresh(&mut seen, &status(2));
        assert_eq!(seen, status(2));
        // What was written since stays: another sentence for another reason, another budget.
        let mut written = status(1);
        written.conditions[1].reason = Reason::EscrowLow;
        written.cost.max_per_month = "9act".into();
        refresh(&mut written, &status(2));
        assert_eq!(written.conditions[1].message, "1 days");
        assert_eq!(
            (written.cost.max_per_month.as_str(), written.cost.spent.as_str()),
            ("9act", "2act")
        );
    }
}
