//! What the operator may set, and the checked form that the rest of the program sees.
