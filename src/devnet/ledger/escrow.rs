//! Money held for deployments and bids. Nothing is done block by block: what a lease owes is worked
//! out when somebody touches the account, and only then does a dry account show.

use super::amount::{ONE, UACT, UAKT, scaled, whole};
use super::error::{TxError, escrow};
use super::handle::Ctx;
use super::state::{Deposited, ESCROW_POT, EscrowAccount, Payment};
use crate::wire::akash::base::deposit::v1::Source;
use crate::wire::akash::escrow::types::v1::State;

/// What a settlement did.
struct Settled {
    /// The funds did not reach.
    overdrawn: bool,
    /// Payments that were brought up to date. Empty when there was a settlement in this block
    /// already: that is how a second one in the same block goes wrong on the real chain.
    touched: Vec<String>,
}

impl EscrowAccount {
    fn paying_funds(&self) -> i128 {
        self.funds.first().map_or(0, |(_, amount)| *amount)
    }

    fn add(list: &mut Vec<(String, i128)>, denom: &str, amount: i128) {
        match list.iter_mut().find(|(name, _)| name == denom) {
            Some((_, sum)) => *sum += amount,
            None => list.push((denom.to_owned(), amount)),
        }
    }

    /// Takes up to `owed` out of the deposits, the oldest first; gives what it took.
    fn take(&mut self, denom: &str, owed: i128) -> i128 {
        let mut left = owed;
        for deposit in self.deposits.iter_mut().filter(|deposit| deposit.denom == denom) {
            let part = deposit.amount.min(left);
            deposit.amount -= part;
            left -= part;
        }
        self.deposits.retain(|deposit| deposit.amount > 0);
        let taken = owed - left;
        Self::add(&mut self.funds, denom, -taken);
        Self::add(&mut self.transferred, denom, taken);
        taken
    }
}

impl Ctx<'_> {
    fn escrow_account(&self, key: &str) -> Result<EscrowAccount, TxError> {
        self.state
            .escrow
            .get(&key.to_owned())
            .cloned()
            .ok_or_else(|| escrow::ACCOUNT_NOT_FOUND.into())
    }

    fn payment(&self, key: &str) -> Result<Payment, TxError> {
        self.state
            .payments
            .get(&key.to_owned())
            .cloned()
            .ok_or_else(|| escrow::PAYMENT_NOT_FOUND.into())
    }

    /// Opens an account with its owner's first deposit.
    pub(super) fn open_escrow(
        &mut self,
        key: &str,
        owner: &str,
        payer: (&str, Source),
        (denom, amount): (&str, u128),
    ) -> Result<(), TxError> {
        if self.state.escrow.contains(&key.to_owned()) {
            return Err(escrow::ACCOUNT_EXISTS.into());
        }
        self.state.auth.pay(payer.0, ESCROW_POT, denom, amount)?;
        let deposit = Deposited {
            owner: payer.0.to_owned(),
            source: payer.1,
            height: self.block.height,
            denom: denom.to_owned(),
            amount: scaled(amount),
        };
        let account = EscrowAccount {
            owner: owner.to_owned(),
            state: State::Open,
            transferred: vec![(denom.to_owned(), 0)],
            settled_at: self.block.height,
            funds: vec![(denom.to_owned(), scaled(amount))],
            deposits: vec![deposit],
        };
        self.state.escrow.put(key.to_owned(), account);
        Ok(())
    }

    /// Adds to an account; anybody may. An overdrawn account takes it for its debt, gives the rest
    /// back and closes.
    pub(super) fn top_up(
        &mut self,
        key: &str,
        (from, source): (&str, Source),
        denom: &str,
        amount: u128,
    ) -> Result<(), TxError> {
        let mut account = self.escrow_account(key)?;
        if account.state == State::Closed {
            return Err(escrow::ACCOUNT_CLOSED.into());
        }
        if denom != UACT && denom != UAKT {
            return Err(escrow::INVALID_DENOM.into());
        }
        self.state.auth.pay(from, ESCROW_POT, denom, amount)?;
        if let Some((_, funds)) =
            account.funds.iter_mut().find(|(name, funds)| name == denom && *funds < 0)
        {
            *funds = 0;
        }
        EscrowAccount::add(&mut account.funds, denom, scaled(amount));
        EscrowAccount::add(&mut account.transferred, denom, 0);
        let deposit = Deposited {
            owner: from.to_owned(),
            source,
            height: self.block.height,
            denom: denom.to_owned(),
            amount: scaled(amount),
        };
        account.deposits.push(deposit);
        let overdrawn = account.state == State::Overdrawn;
        self.state.escrow.put(key.to_owned(), account);
        if overdrawn {
            let settled = self.settle(key)?;
            if !settled.overdrawn {
                self.shut(key, &settled.touched)?;
            }
            self.escrow_ended(key)?;
        }
        Ok(())
    }

    /// Pays what is owed up to this block.
    fn settle(&mut self, key: &str) -> Result<Settled, TxError> {
        let mut account = self.escrow_account(key)?;
        if account.state == State::Closed {
            return Err(escrow::ACCOUNT_CLOSED.into());
        }
        if account.paying_funds() < 0 {
            return Ok(Settled { overdrawn: true, touched: Vec::new() });
        }
        let mut blocks = 0;
        if account.state == State::Open {
            blocks = i128::from(self.block.height.saturating_sub(account.settled_at));
            account.settled_at = self.block.height;
        }
        let mut settled = Settled { overdrawn: false, touched: Vec::new() };
        for name in self.state.payments_of(key) {
            let mut payment = self.payment(&name)?;
            let owed = match payment.state {
                State::Overdrawn => std::mem::take(&mut payment.unsettled),
                State::Open if blocks > 0 => payment.rate.saturating_mul(blocks) / ONE * ONE,
                _ => continue,
            };
            let paid = account.take(&payment.denom, owed);
            payment.balance += paid;
            payment.unsettled += owed - paid;
            payment.state = State::Open;
            if paid < owed {
                EscrowAccount::add(&mut account.funds, &payment.denom, paid - owed);
                settled.overdrawn = true;
            }
            self.state.payments.put(name.clone(), payment);
            settled.touched.push(name);
        }
        if settled.overdrawn {
            account.state = State::Overdrawn;
        }
        self.state.escrow.put(key.to_owned(), account);
        if settled.overdrawn {
            for name in &settled.touched {
                self.state.payments.change(name, |payment| payment.state = State::Overdrawn);
                self.pay_out(name)?;
            }
            self.escrow_ended(key)?;
        }
        Ok(settled)
    }

    /// Closes an account and these payments; what is left is given back by [`Ctx::escrow_ended`].
    fn shut(&mut self, key: &str, payments: &[String]) -> Result<(), TxError> {
        for name in payments {
            self.state.payments.change(name, |payment| payment.state = State::Closed);
            self.pay_out(name)?;
        }
        self.state.escrow.change(&key.to_owned(), |account| account.state = State::Closed);
        Ok(())
    }

    /// Gives back what is left of each deposit, and lets the deployment end with its account.
    fn escrow_ended(&mut self, key: &str) -> Result<(), TxError> {
        let mut account = self.escrow_account(key)?;
        for deposit in std::mem::take(&mut account.deposits) {
            self.state.auth.pay(
                ESCROW_POT,
                &deposit.owner,
                &deposit.denom,
                whole(deposit.amount),
            )?;
            if deposit.source == Source::Grant {
                self.give_back(&deposit.owner, &account.owner, whole(deposit.amount));
            }
            EscrowAccount::add(&mut account.funds, &deposit.denom, -deposit.amount);
        }
        let overdrawn = account.state == State::Overdrawn;
        self.state.escrow.put(key.to_owned(), account);
        if let Some(id) = key.strip_prefix("deployment/") {
            self.deployment_ended(id, overdrawn);
        }
        Ok(())
    }

    /// Pays everything owed, gives the rest back and closes.
    pub(super) fn close_escrow(&mut self, key: &str) -> Result<(), TxError> {
        let settled = self.settle(key)?;
        if self.escrow_account(key)?.state == State::Open {
            self.shut(key, &settled.touched)?;
            self.escrow_ended(key)?;
        }
        Ok(())
    }

    /// Starts to pay `rate` for each block.
    pub(super) fn create_payment(
        &mut self,
        account: &str,
        name: &str,
        to: &str,
        denom: &str,
        rate: i128,
    ) -> Result<(), TxError> {
        if self.settle(account)?.overdrawn {
            return Err(escrow::ACCOUNT_OVERDRAWN.into());
        }
        if !self.escrow_account(account)?.funds.iter().any(|(name, _)| name == denom) {
            return Err(escrow::INVALID_DENOM.into());
        }
        if rate == 0 {
            return Err(escrow::RATE_ZERO.into());
        }
        if self.state.payments.contains(&name.to_owned()) {
            return Err(escrow::PAYMENT_EXISTS.into());
        }
        let payment = Payment {
            owner: to.to_owned(),
            state: State::Open,
            denom: denom.to_owned(),
            rate,
            balance: 0,
            unsettled: 0,
            withdrawn: 0,
        };
        self.state.payments.put(name.to_owned(), payment);
        Ok(())
    }

    /// Pays out what a lease has earned.
    pub(super) fn withdraw_payment(&mut self, account: &str, name: &str) -> Result<(), TxError> {
        self.escrow_account(account)?;
        if self.payment(name)?.state != State::Open {
            return Err(escrow::PAYMENT_CLOSED.into());
        }
        let settled = self.settle(account)?;
        if settled.overdrawn {
            return Ok(());
        }
        if !settled.touched.iter().any(|touched| touched == name) {
            return Err(TxError::panic(format_args!("couldn't find payment {name}")));
        }
        self.pay_out(name)
    }

    /// Ends a payment. In a block that settled its account already it stays open, as on the real
    /// chain.
    pub(super) fn close_payment(&mut self, account: &str, name: &str) -> Result<(), TxError> {
        self.escrow_account(account)?;
        if self.payment(name)?.state == State::Closed {
            return Err(escrow::PAYMENT_CLOSED.into());
        }
        let settled = self.settle(account)?;
        if !settled.overdrawn && settled.touched.iter().any(|touched| touched == name) {
            self.state.payments.change(&name.to_owned(), |payment| payment.state = State::Closed);
            self.pay_out(name)?;
        }
        Ok(())
    }

    fn pay_out(&mut self, name: &str) -> Result<(), TxError> {
        let mut payment = self.payment(name)?;
        let earned = whole(payment.balance);
        self.state.auth.pay(ESCROW_POT, &payment.owner, &payment.denom, earned)?;
        payment.withdrawn += earned;
        payment.balance -= scaled(earned);
        self.state.payments.put(name.to_owned(), payment);
        Ok(())
    }
}
