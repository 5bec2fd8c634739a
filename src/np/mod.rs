//! NoPorts: what the programs say to each other. Bytes, time and randomness come in as arguments; nothing here does I/O.
