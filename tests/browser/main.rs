use fantoccini as _;
#[test]
fn nothing() {}
