//! Who pays: the wallet itself, or other accounts by their grants; and for how long that does.

use super::money::Uact;
use super::time::UnixMs;

/// The coins behind the wallet's transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Funds {
    /// Spendable ACT of the wallet itself.
    pub own_act: Uact,
    /// Spendable AKT of the wallet itself, in uakt.
    pub own_uakt: u64,
    /// The account that pays deposits in place of the wallet, in uact.
    pub treasury: Option<Grant>,
    /// The account that pays fees in place of the wallet, in uakt.
    pub fee_grant: Option<Grant>,
}

/// A grant of another account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The account that pays.
    pub granter: String,
    /// What it holds of the coin, millionths.
    pub holds: u64,
    /// What it allows; none when it has made no grant, or when that is over.
    pub terms: Option<GrantTerms>,
}

/// What a grant allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantTerms {
    /// What may still be spent, millionths; none for a grant without a limit.
    pub limit: Option<u64>,
    /// When it ends.
    pub expires: Option<UnixMs>,
    /// Messages of ours that it does not pay for, by name.
    pub refuses: Vec<String>,
}

impl Grant {
    /// What can be spent by it at this moment.
    #[must_use]
    pub fn available(&self, now: UnixMs) -> u64 {
        match &self.terms {
            Some(terms) if self.problem(now).is_none() => {
                self.holds.min(terms.limit.unwrap_or(u64::MAX))
            }
            _ => 0,
        }
    }

    /// Why nothing can be spent by it, whatever the granter holds: the second half of a sentence.
    #[must_use]
    pub fn problem(&self, now: UnixMs) -> Option<String> {
        let Some(terms) = &self.terms else {
            return Some("has made no such grant to the wallet, or it is over".to_owned());
        };
        if let Some(at) = terms.expires.filter(|at| *at <= now) {
            return Some(format!("made a grant that ended at {at}"));
        }
        let refused = terms.refuses.join(", ");
        (!refused.is_empty()).then(|| format!("made a grant that does not pay for {refused}"))
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> Option<UnixMs> {
        self.terms.as_ref().and_then(|terms| terms.expires)
    }
}

/// How long the wallet does, for all clusters together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalletOutlook {
    /// Leases that run and stand in a record.
    pub leases: usize,
    /// What they cost per month of 30 days.
    pub per_month: Uact,
    /// What is left in their escrows.
    pub in_escrow: Uact,
    /// From then on no escrow can be filled; none when that is further away than anybody plans.
    pub refills_end: Option<UnixMs>,
    /// From then on no fee can be paid for it.
    pub fees_end: Option<UnixMs>,
    /// AKT is being burnt for ACT that is not in the wallet yet.
    pub minting: bool,
}

impl WalletOutlook {
    /// From then on no escrow is filled, for want of whichever coin.
    #[must_use]
    pub fn end(&self) -> Option<UnixMs> {
        self.refills_end.into_iter().chain(self.fees_end).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_worth_what_it_allows_and_its_granter_holds() {
        let grant = |holds, terms| Grant { granter: "akash1t".into(), holds, terms };
        let terms = |limit, expires: Option<u64>| {
            Some(GrantTerms { limit, expires: expires.map(UnixMs), refuses: Vec::new() })
        };
        let now = UnixMs(1000);
        for (holds, terms, worth) in [
            (50, terms(Some(30), None), 30),
            (20, terms(Some(30), Some(1001)), 20),
            (50, terms(None, None), 50),
            (50, terms(Some(30), Some(1000)), 0),
            (50, None, 0),
        ] {
            let grant = grant(holds, terms);
            assert_eq!(grant.available(now), worth, "{grant:?}");
            assert_eq!(grant.problem(now).is_some(), worth == 0, "{grant:?}");
        }
        let refuses = vec!["MsgCloseDeployment".to_owned()];
        let some = grant(9, Some(GrantTerms { refuses, ..GrantTerms::default() }));
        assert_eq!(some.available(now), 0);
        assert!(some.problem(now).is_some_and(|why| why.ends_with("MsgCloseDeployment")));
    }
}
