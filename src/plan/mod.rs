//! From what is wanted, remembered and observed to what shall be done. Pure: no I/O, no clock, no randomness.
