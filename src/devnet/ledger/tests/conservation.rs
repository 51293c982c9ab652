use proptest::prelude::{ProptestConfig, Strategy, prop_assert_eq, prop_oneof, proptest};

use super::*;
use crate::devnet::ledger::ESCROW_POT;

#[derive(Clone, Debug)]
enum Deed {
    Create { dseq: u64, price: u128, amount: u128 },
    Bid { dseq: u64, oseq: u32, at: usize, price: u128 },
    Lease { dseq: u64, oseq: u32, at: usize },
    CloseLease { dseq: u64, oseq: u32, at: usize },
    CloseBid { dseq: u64, oseq: u32, at: usize },
    Withdraw { dseq: u64, oseq: u32, at: usize },
    Deposit { dseq: u64, at: usize, uakt: bool, amount: u128 },
    Start { dseq: u64 },
    Close { dseq: u64 },
    Blocks { count: u64 },
}

fn deed() -> impl Strategy<Value = Deed> {
    let place = || (1..3_u64, 1..4_u32, 0..3_usize);
    prop_oneof![
        (1..3_u64, 1..200_000_u128, 500_000..900_000_u128)
            .prop_map(|(dseq, price, amount)| Deed::Create { dseq, price, amount }),
        (place(), 1..200_000_u128).prop_map(|((dseq, oseq, at), price)| Deed::Bid {
            dseq,
            oseq,
            at,
            price
        }),
        (place(), 1..200_000_u128).prop_map(|((dseq, oseq, at), price)| Deed::Bid {
            dseq,
            oseq,
            at,
            price
        }),
        place().prop_map(|(dseq, oseq, at)| Deed::Lease { dseq, oseq, at }),
        place().prop_map(|(dseq, oseq, at)| Deed::Lease { dseq, oseq, at }),
        place().prop_map(|(dseq, oseq, at)| Deed::CloseLease { dseq, oseq, at }),
        place().prop_map(|(dseq, oseq, at)| Deed::CloseBid { dseq, oseq, at }),
        place().prop_map(|(dseq, oseq, at)| Deed::Withdraw { dseq, oseq, at }),
        (1..3_u64, 0..3_usize, proptest::bool::ANY, 1..600_000_u128)
            .prop_map(|(dseq, at, uakt, amount)| Deed::Deposit { dseq, at, uakt, amount }),
        (1..3_u64).prop_map(|dseq| Deed::Start { dseq }),
        (1..3_u64).prop_map(|dseq| Deed::Close { dseq }),
        (1..8_u64).prop_map(|count| Deed::Blocks { count }),
    ]
}

fn act(market: &mut Market, deed: &Deed) {
    let tenant = market.tenant();
    let (who, msg) = match *deed {
        Deed::Create { dseq, price, amount } => {
            (tenant, any(&market.create_msg(dseq, price, amount)))
        }
        Deed::Bid { dseq, oseq, at, price } => {
            (market.provider(at), market.bid_msg(dseq, oseq, at, price))
        }
        Deed::Lease { dseq, oseq, at } => (tenant, market.lease_msg(dseq, oseq, at)),
        Deed::CloseLease { dseq, oseq, at } => (tenant, market.close_lease_msg(dseq, oseq, at)),
        Deed::CloseBid { dseq, oseq, at } => {
            (market.provider(at), market.close_bid_msg(dseq, oseq, at, 10_001))
        }
        Deed::Withdraw { dseq, oseq, at } => {
            (market.provider(at), market.withdraw_msg(dseq, oseq, at))
        }
        Deed::Deposit { dseq, at, uakt, amount } => {
            let who = market.provider(at);
            let msg = market.deposit_msg(dseq, &who, if uakt { UAKT } else { UACT }, amount);
            (who, msg)
        }
        Deed::Start { dseq } => (tenant, market.start_msg(dseq)),
        Deed::Close { dseq } => (tenant, market.close_msg(dseq)),
        Deed::Blocks { count } => {
            market.blocks(count);
            return;
        }
    };
    let tx = market.sign(&who, &[msg]);
    // Whether it is refused, fails or works is not the question here.
    let _ = market.ledger.submit(&tx);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_coin_is_made_or_lost(deeds in proptest::collection::vec(deed(), 1..60)) {
        let mut market = Market::new(3);
        let supply = |market: &Market| [UACT, UAKT].map(|denom| market.ledger.view().supply(denom));
        let before = supply(&market);
        for deed in &deeds {
            act(&mut market, deed);
            let view = market.ledger.view();
            for denom in [UACT, UAKT] {
                let pot = i128::try_from(view.balance(ESCROW_POT, denom)).unwrap();
                prop_assert_eq!(pot * crate::devnet::ledger::ONE, view.held_in_escrow(denom));
            }
        }
        market.blocks(1);
        prop_assert_eq!(supply(&market), before);
    }
}
