//! Names of zones, and what is none.

use super::{Zone, zone};

#[test]
fn zones_have_names_of_iana() {
    for (asked, name) in [
        ("Europe/Berlin", "Europe/Berlin"),
        ("europe/BERLIN", "Europe/Berlin"),
        ("America/Argentina/ComodRivadavia", "America/Argentina/ComodRivadavia"),
        ("Asia/Calcutta", "Asia/Calcutta"),
        ("Asia/Kathmandu", "Asia/Kathmandu"),
        ("UTC", "UTC"),
        ("utc", "UTC"),
        ("Etc/UTC", "Etc/UTC"),
        ("Etc/GMT+5", "Etc/GMT+5"),
        ("EST5EDT", "EST5EDT"),
    ] {
        assert_eq!(Zone::find(asked).as_ref().map(Zone::name), Some(name), "{asked}");
    }
    assert_eq!(Zone::utc(), zone("UTC"));
    assert_eq!(Zone::utc().name(), "UTC");
    assert_eq!(zone("EUROPE/berlin"), zone("Europe/Berlin"));
    assert_ne!(zone("Europe/Paris"), zone("Europe/Berlin"));
}

#[test]
fn what_is_no_zone() {
    let (long, longer) = ("x".repeat(10_000), format!("Europe/Berlin{}", " ".repeat(60)));
    for name in [
        "",
        " ",
        "/",
        "..",
        "../../etc",
        "../../etc/localtime",
        "/usr/share/zoneinfo/Europe/Berlin",
        "posix/Europe/Berlin",
        "Europe/../Europe/Berlin",
        "Europe/",
        "Europe",
        "Europe/Berlin\0",
        "Europe/Berlin ",
        " Europe/Berlin",
        "Europe\\Berlin",
        "Europe%2FBerlin",
        "Europe/Atlantis",
        "Etc/Unknown",
        "etc/unknown",
        "CET-1CEST",
        "EST5EDT,M3.2.0,M11.1.0",
        ":Europe/Berlin",
        "<+03>-3",
        "+01:00",
        "-05",
        "UTC+1",
        "Z",
        "local",
        "localtime",
        "posixrules",
        "zone1970.tab",
        "tzdata.zi",
        "Europe/Be\u{17f}lin",
        &long,
        &longer,
    ] {
        assert_eq!(Zone::find(name), None, "{name:.80}");
    }
}
