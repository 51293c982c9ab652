//! The chain client against recorded answers of a real node.

mod endpoints;
mod messages;
mod node;
mod offers;
mod reading;
mod sending;

const OWNER: &str = "akash1qufa3xzrf34qvwyejkhvnc4psf49fftaw0asmh";
/// Public test data of the network's own software development kit.
const PHRASE: &str = "addict worth drip violin note olive final pelican perfect feel goat game horror brass fence deposit dutch improve \
                      setup stuff frost spirit smart alien";
const CHAIN_ID: &str = "akash-local";
/// The recorded deployment.
const DSEQ: u64 = 1_795_517_081;
