//! What the chain's refusals mean, in sentences for people, and what they say about a transaction.

/// Longest text of the chain that is passed on: a handler that panics answers with its stack.
const MAX_TEXT: usize = 300;
/// Codespace of the Cosmos SDK itself.
pub(super) const SDK: &str = "sdk";
/// Its code for what is not there.
pub(super) const NOT_FOUND: u32 = 38;
/// Words by which a missing fee grant is known, whatever is around them.
pub(super) const NO_FEE_GRANT: &str = "fee-grant not found";

/// One refusal: codespace, code, the words by which it is known where only text comes back, and
/// what it means.
type Known = (&'static str, u32, &'static str, &'static str);

/// The refusals that the messages of a tenant meet. The words are empty where a text could belong
/// to something else.
const KNOWN: [Known; 22] = [
    (
        "deployment",
        3,
        "Deployment exists",
        "a deployment with this dseq exists already, open or closed",
    ),
    ("deployment", 4, "Deployment not found", "there is no deployment with this dseq"),
    ("deployment", 5, "Deployment closed", "the deployment is closed already"),
    (
        "deployment",
        10,
        "",
        "the manifest hash is refused: it is not 32 bytes long, or it is the one stored already",
    ),
    (
        "deployment",
        20,
        "Deposit invalid",
        "the deposit is refused: too low, or in another coin than the price",
    ),
    ("deployment", 24, "", "the price is refused"),
    (
        "market",
        12,
        "bid not open",
        "the bid is gone: the provider withdrew it or another lease took it",
    ),
    ("market", 13, "order not open", "the order is not open any more, the bid is a leftover of it"),
    ("market", 15, "order not found", "the order does not exist"),
    ("market", 18, "bid not found", "the bid does not exist"),
    ("market", 20, "lease not found", "the lease does not exist"),
    ("escrow", 2, "", "the escrow account is closed"),
    (
        SDK,
        4,
        "signature verification failed",
        "the signature is refused: `chain.id` or the account is not that of this node",
    ),
    (
        SDK,
        5,
        "insufficient funds",
        "the wallet has not enough coins: send it AKT for fees, and ACT or a larger budget for deposits",
    ),
    (SDK, 8, "", "the transaction was signed by another key than its owner's"),
    (SDK, 11, "out of gas", "the gas limit was too low; the next attempt is given more"),
    (SDK, 13, "insufficient fee", "the fee is too low: raise `chain.gasPrice`"),
    (SDK, 18, "", "the request is invalid"),
    (SDK, 20, "mempool is full", "the node has too many transactions waiting"),
    (SDK, 30, "", "the transaction came after its time-out"),
    (
        SDK,
        38,
        "does not allow to pay fees",
        "the fee granter has no allowance for the wallet: check `wallet.feeGranter`",
    ),
    (SDK, 42, "tx timeout", "the transaction came after its time-out"),
];

/// What `BroadcastTx` says about the bytes that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Waiting for a block.
    Accepted,
    /// Nothing new: these bytes, or others with their time-out, were here before, or it is too late
    /// for them. Only a look-up by hash tells.
    LookUp,
    /// Not taken now, for no fault of their own.
    Later,
    /// This node will not pass them on.
    Refused,
}

/// Sorts the answer of `BroadcastTx`.
pub(super) fn check(codespace: &str, code: u32, log: &str) -> Check {
    match (codespace, code) {
        (_, 0) => Check::Accepted,
        (SDK, 19 | 30 | 42) => Check::LookUp,
        (SDK, 18) if log.contains("has already used timeout") => Check::LookUp,
        (SDK, 20) => Check::Later,
        _ => Check::Refused,
    }
}

/// The chain's text, after what it means when that is known; one line, shortened.
pub(super) fn say(codespace: &str, code: u32, log: &str) -> String {
    // The bare bytes of two addresses are around these words.
    let bare = (codespace, code) == (SDK, NOT_FOUND) && log.contains(NO_FEE_GRANT);
    let text = if bare { String::new() } else { shorten(log) };
    match KNOWN.iter().find(|known| known.0 == codespace && known.1 == code) {
        Some(known) if text.is_empty() => known.3.to_owned(),
        Some(known) => format!("{} ({text})", known.3),
        None => text,
    }
}

/// Codespace and code of a gRPC error. Queries spell them out, `Simulate` gives words only; `None`
/// when neither is known.
pub(super) fn from_text(text: &str) -> Option<(String, u32)> {
    if let Some((codespace, rest)) =
        text.strip_prefix("codespace ").and_then(|rest| rest.split_once(" code "))
    {
        let code = rest.split(':').next().and_then(|n| n.trim().parse().ok());
        if let Some(code) = code {
            return Some((shorten(codespace), code));
        }
    }
    KNOWN
        .iter()
        .find(|known| !known.2.is_empty() && text.contains(known.2))
        .map(|known| (known.0.to_owned(), known.1))
}

/// Bytes that are no text are replaced before they come here; what replaces them is a question mark.
fn legible(c: char) -> char {
    match c {
        char::REPLACEMENT_CHARACTER => '?',
        c if c.is_control() => ' ',
        c => c,
    }
}

/// Cuts at a character and leaves nothing that would disturb a terminal or a log.
pub(super) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().map(legible).take(MAX_TEXT).collect();
    if line.chars().count() > MAX_TEXT || line.len() < text.trim_end().len() {
        short.push_str(" ...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_only_a_look_up_can_settle() {
        assert_eq!(check("", 0, ""), Check::Accepted);
        assert_eq!(check("sdk", 19, ""), Check::LookUp);
        assert_eq!(check("sdk", 42, "block time: ...: tx timeout"), Check::LookUp);
        let used = "failed to add unordered nonce: sender akash1 has already used timeout 1795517107060067693: invalid request";
        assert_eq!(check("sdk", 18, used), Check::LookUp);
        assert_eq!(
            check("sdk", 18, "unordered tx ttl exceeds 10m0s: invalid request"),
            Check::Refused
        );
        assert_eq!(check("undefined", 111_222, "recovered: panic"), Check::Refused);
        assert_eq!(check("deployment", 19, "groupspec invalid"), Check::Refused);
    }

    #[test]
    fn queries_name_their_code_and_simulation_is_known_by_its_words() {
        assert_eq!(
            from_text("codespace market code 20: invalid lease: lease not found"),
            Some(("market".into(), 20))
        );
        let text = "failed to execute message; message index: 0: Deployment exists [x/deployment/handler/server.go:9] with gas used: '5'";
        assert_eq!(from_text(text), Some(("deployment".into(), 3)));
        assert_eq!(from_text("invalid state value"), None);
    }

    #[test]
    fn long_and_dirty_texts_are_cut() {
        let said =
            say("undefined", 111_222, &format!("panic\u{7}{}\ngoroutine 1", "x".repeat(5000)));
        assert!(
            said.starts_with("panic xxx") && said.ends_with(" ...") && said.len() < 320,
            "{said}"
        );
        assert_eq!(say("sdk", 19, ""), "");
        // As a real node wrote it: the bytes of the granter, some words, the bytes of the wallet.
        let log = String::from_utf8_lossy(
            b"*|\xe9\x62\x5c\x11\xe0 does not allow to pay fees for \x00q\xff: fee-grant not found: not found",
        );
        assert_eq!(
            say("sdk", 38, &log),
            "the fee granter has no allowance for the wallet: check `wallet.feeGranter`"
        );
        assert_eq!(say("undefined", 1, "a \u{fffd}\u{7}b"), "a ? b", "bytes are no text");
        assert!(say("sdk", 13, "got: 1uakt").contains("`chain.gasPrice` (got: 1uakt)"));
    }
}
