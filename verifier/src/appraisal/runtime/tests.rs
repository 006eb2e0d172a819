//! Attacks on the list, and what each comes to.
