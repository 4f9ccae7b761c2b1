//! The values of each section.

use super::{assert_mistake, assert_service_mistake, mistakes};

#[test]
fn daemon() {
    let long = format!("[daemon]\nsocket = \"/{}\"", "x".repeat(107));
    for (text, expected) in [
        (
            "[daemon]\nbpffs = 5",
            "2:9: bpffs: expected text in quotes, found 5",
        ),
        (
            "[daemon]\nstate_dir = \"lb\"",
            "2:13: state_dir: expected an absolute path, beginning with '/', found \"lb\"",
        ),
        (
            "[daemon]\nstate_dir = \"/l\\u0000b\"",
            "2:13: state_dir: a path cannot have control characters",
        ),
        (
            &long,
            "2:10: socket: the path of a unix socket has at most 107 bytes, this one has 108: choose a shorter one",
        ),
    ] {
        assert_mistake(text, expected);
    }
}

#[test]
fn interface() {
    for (text, expected) in [
        (
            "[[interface]]\nmode = \"auto\"",
            "1:1: [[interface]] has no name: add name = \"eth0\"",
        ),
        (
            "[[interface]]\nname = \"abcdefghijklmnop\"",
            "2:8: name: an interface name has at most 15 characters, \"abcdefghijklmnop\" has 16",
        ),
        (
            "[[interface]]\nname = \"eth 0\"",
            "2:8: name: \"eth 0\" cannot be the name of an interface: \"ip link\" lists those of this host",
        ),
        (
            "[[interface]]\nname = \"eth0\"\nmode = \"driver\"",
            "3:8: mode: expected one of \"auto\", \"native\", \"generic\", found \"driver\"",
        ),
        (
            "[[interface]]\nname = \"eth0\"\nmode = \"nativ\"",
            "3:8: mode: \"nativ\" is unknown: did you mean \"native\"?",
        ),
        (
            "[[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"eth0\"",
            "4:8: interface eth0 is listed already: remove one of the two",
        ),
    ] {
        assert_mistake(text, expected);
    }
    let twice = mistakes("[[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"eth0\"");
    let first = twice[0].other.as_ref().unwrap();
    assert_eq!((first.line, first.column), (2, 8));
}

#[test]
fn conntrack() {
    let range = "a whole number from 64 to 100000000";
    for (value, found) in [
        ("63", "63"),
        ("-1", "-1"),
        ("100_000_001", "100000001"),
        (
            "0xffff_ffff_ffff_ffff_ffff_ffff_ffff_ffff",
            "0xffffffffffffffffffffffffffffffff",
        ),
        ("1e6", "1e6"),
        ("true", "true"),
        ("2020-01-01", "2020-01-01"),
        ("[]", "a list"),
        ("\"1000\"", "\"1000\": take the quotes away"),
    ] {
        assert_mistake(
            &format!("[conntrack]\ncapacity = {value}"),
            &format!("2:12: capacity: expected {range}, found {found}"),
        );
    }
    assert_mistake(
        "[conntrack]\nprofile = \"fast\"",
        "2:11: profile: expected one of \"edge\", \"rfc\", found \"fast\"",
    );
    assert_mistake(
        "[conntrack]\nflood_limit = 0",
        "2:15: flood_limit: expected a whole number from 1 to 100000000, found 0",
    );
}

#[test]
fn icmp() {
    assert_mistake(
        "[icmp]\necho = \"drop\"",
        "2:8: echo: expected one of \"answer\", \"pass\", found \"drop\"",
    );
    assert_mistake(
        "[icmp]\nping = \"pass\"",
        "2:1: unknown key \"ping\" in [icmp]: the keys here are echo",
    );
}

#[test]
fn service() {
    assert_mistake(
        "\n  [[service]]\nlisten = \"192.0.2.10:80\"",
        "2:3: [[service]] has no name: add name = \"web\"",
    );
    assert_mistake(
        "[[service]]\nname = \"web\"",
        "1:1: [[service]] has no listen: add listen = \"192.0.2.10:80\"",
    );
    assert_mistake(
        "[[service]]\nlisten = \"192.0.2.10:80\"\nname = \"a/b\"",
        "3:8: name: a name is made of letters, digits, '.', '_', ':' and '-', not '/'",
    );
    for (added, expected) in [
        (
            "protocol = \"udp\"",
            "4:12: protocol: expected \"tcp\", found \"udp\"",
        ),
        (
            "table_size = 5",
            "4:14: table_size: expected a whole number from 251 to 65537, found 5",
        ),
        (
            "table_size = 1000",
            "4:14: table_size: the number of slots must be prime: 1000 is not, 1009 is",
        ),
        (
            "no_backend = \"reset\"",
            "4:14: no_backend: expected one of \"rst\", \"drop\", \"icmp\", found \"reset\"",
        ),
        (
            "on_expiry = \"forgets\"",
            "4:13: on_expiry: \"forgets\" is unknown: did you mean \"forget\"?",
        ),
        (
            "on_backend_down = true",
            "4:19: on_backend_down: expected one of \"keep\", \"reset\", found true",
        ),
        (
            "profile = \"fast\"",
            "4:11: profile: expected one of \"edge\", \"rfc\", found \"fast\"",
        ),
    ] {
        assert_service_mistake(added, expected);
    }
}

#[test]
fn addresses() {
    for (address, message) in [
        (
            "\"10.0.0.1\"",
            "\"10.0.0.1\" has no port: add one, as in \"10.0.0.1:80\"",
        ),
        (
            "\"2001:db8::1\"",
            "\"2001:db8::1\" has no port: add one, as in \"[2001:db8::1]:80\"",
        ),
        (
            "\"[2001:db8::1]\"",
            "\"[2001:db8::1]\" has no port: add one, as in \"[2001:db8::1]:80\"",
        ),
        (
            "\"2001:db8:0:0:0:0:0:1:80\"",
            "\"2001:db8:0:0:0:0:0:1:80\": an IPv6 address with a port has brackets: \"[2001:db8:0:0:0:0:0:1]:80\"",
        ),
        (
            "\"localhost:80\"",
            "\"localhost:80\" is not an IP address and a port, as in \"192.0.2.10:80\" or \"[2001:db8::10]:80\"; host names are not looked up",
        ),
        (
            "80",
            "expected an IP address and a port, as in \"192.0.2.10:80\" or \"[2001:db8::10]:80\", found 80",
        ),
    ] {
        assert_mistake(
            &format!("[[service]]\nname = \"web\"\nlisten = {address}"),
            &format!("3:10: listen: {message}"),
        );
    }
}

#[test]
fn timeouts() {
    for (value, message) in [
        (
            "\"500ms\"",
            "expected a duration from 1s to 7d, found \"500ms\"",
        ),
        ("\"8d\"", "expected a duration from 1s to 7d, found \"8d\""),
        ("\"1500ms\"", "expected whole seconds, found \"1500ms\""),
        ("30", "a duration needs a unit: write \"30s\" or \"30ms\""),
        (
            "\"30\"",
            "a duration needs a unit: write \"30s\" or \"30ms\"",
        ),
        (
            "1.5",
            "expected a duration from 1s to 7d, in quotes, found 1.5",
        ),
        (
            "\"soon\"",
            "\"soon\" is not a duration: write a number and a unit (ms, s, m, h, d), as in \"500ms\" or \"1h30m\"",
        ),
    ] {
        assert_service_mistake(
            &format!("[service.timeouts]\nhalf_open = {value}"),
            &format!("5:13: half_open: {message}"),
        );
    }
}

#[test]
fn check() {
    for (line, expected) in [
        (
            "rise = 0",
            "rise: expected a whole number from 1 to 65535, found 0",
        ),
        (
            "fall = 0",
            "fall: expected a whole number from 1 to 65535, found 0",
        ),
        (
            "interval = \"99ms\"",
            "interval: expected a duration from 100ms to 1h, found \"99ms\"",
        ),
        (
            "timeout = \"2h\"",
            "timeout: expected a duration from 10ms to 1h, found \"2h\"",
        ),
        (
            "path = \"/\"",
            "path: only a check of type = \"http\" has one",
        ),
        (
            "host = \"a\"",
            "host: only a check of type = \"http\" has one",
        ),
        (
            "type = \"ping\"",
            "type: expected one of \"tcp\", \"http\", \"none\", found \"ping\"",
        ),
    ] {
        let column = line.find("= ").unwrap() + 3;
        assert_service_mistake(
            &format!("[service.check]\n{line}"),
            &format!("5:{column}: {expected}"),
        );
    }
    for (line, expected) in [
        (
            "path = \"x\"",
            "path: a path begins with '/', as in \"/healthz\"",
        ),
        (
            "path = \"/a b\"",
            "path: a path cannot have ' ': write it percent-encoded",
        ),
        (
            "path = \"/\\r\\nX: y\"",
            "path: a path cannot have '\\r': write it percent-encoded",
        ),
        (
            "host = \"\"",
            "host: a host cannot be empty: take the line out to send the backend's address",
        ),
        (
            "host = \"a\\nb\"",
            "host: a host is a name or an address and perhaps a port, as in \"www.example.com\"; it cannot have '\\n'",
        ),
    ] {
        assert_service_mistake(
            &format!("[service.check]\ntype = \"http\"\n{line}"),
            &format!("6:8: {expected}"),
        );
    }
}

#[test]
fn backend() {
    for (lines, expected) in [
        (
            "weight = 1",
            "4:1: [[service.backend]] has no address: add address = \"10.0.1.11:8080\"",
        ),
        (
            "address = \"10.0.0.1:80\"\nweight = 65536",
            "6:10: weight: expected a whole number from 0 to 65535, found 65536",
        ),
        (
            "address = \"10.0.0.1:80\"\nadmin = \"off\"",
            "6:9: admin: expected one of \"enabled\", \"drain\", \"maint\", found \"off\"",
        ),
        (
            "name = \"a\"\naddress = \"[2001:db8::1]:80\"",
            "6:11: [2001:db8::1]:80 is an IPv6 address and service web listens on IPv4: in forwarding mode nat both must be of one family; use an IPv4 address, or a service of its own for IPv6",
        ),
        (
            "name = \"a\"\naddress = \"192.0.2.10:80\"",
            "6:11: 192.0.2.10:80 is the listen address of service web, so its packets would come back to the load balancer: name the address of the server itself",
        ),
    ] {
        assert_service_mistake(&format!("[[service.backend]]\n{lines}"), expected);
    }
}
