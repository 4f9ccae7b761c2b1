//! Syntax, keys and sections.

use super::{assert_mistake, assert_service_mistake};

#[test]
fn toml_that_is_none() {
    for (text, expected) in [
        (
            "name = web # x",
            "1:8: text stands in quotes: write \"web\"",
        ),
        (
            "a = 10.0.0.1:80",
            "1:5: text stands in quotes: write \"10.0.0.1:80\"",
        ),
        ("a = [2s, 3]", "1:6: text stands in quotes: write \"2s\""),
        ("a =\n", "1:4: the value is missing"),
        ("ab: 5", "1:5: key with no value, expected `=`"),
        ("a = 010", "1:5: a number does not begin with 0"),
        ("a = \"x\nb = 1", "1:7: invalid basic string, expected `\"`"),
        ("[daemon\n", "1:8: unclosed table, expected `]`"),
        (
            "[daemon]\nsocket = \"/a\"\nsocket = \"/b\"",
            "3:1: \"socket\" stands here for the second time: remove one of the two (a section that may repeat is written [[…]], every time)",
        ),
    ] {
        assert_mistake(text, expected);
    }
}

#[test]
fn unknown_keys() {
    for (text, expected) in [
        (
            "[deamon]",
            "1:2: unknown key \"deamon\" at the top of the file: did you mean \"daemon\"?",
        ),
        (
            "[daemon]\ncolour = 1",
            "2:1: unknown key \"colour\" in [daemon]: the keys here are socket, state_dir, bpffs",
        ),
        (
            "[daemon]\ncapacity = 1",
            "2:1: unknown key \"capacity\" in [daemon]: it belongs in [conntrack]",
        ),
        (
            "[[backend]]",
            "1:3: unknown key \"backend\" at the top of the file: write that section as [[service.backend]]",
        ),
    ] {
        assert_mistake(text, expected);
    }
    for (added, expected) in [
        (
            "table-size = 251",
            "4:1: unknown key \"table-size\" in [[service]]: did you mean \"table_size\"?",
        ),
        (
            "[service.check]\nscheduler = \"maglev\"",
            "5:1: unknown key \"scheduler\" in [service.check]: it belongs in [[service]]",
        ),
        (
            "[[service.backend]]\naddress = \"10.0.0.1:80\"\n weigth = 5",
            "6:2: unknown key \"weigth\" in [[service.backend]]: did you mean \"weight\"?",
        ),
        (
            "timeouts.establised = \"1h\"",
            "4:10: unknown key \"establised\" in [service.timeouts]: did you mean \"established\"?",
        ),
    ] {
        assert_service_mistake(added, expected);
    }
}

#[test]
fn what_later_versions_have() {
    assert_mistake(
        "[daemon]\nmetrics = \"\"",
        "2:1: this version has no \"metrics\" yet: take it out; [daemon] has socket, state_dir, bpffs",
    );
    for (added, expected) in [
        (
            "scheduler = \"least-latency\"",
            "4:13: scheduler: this version has no \"least-latency\" yet: it has \"maglev\"",
        ),
        (
            "[service.check]\ntype = \"https\"\npath = \"/\"",
            "5:8: type: this version has no \"https\" yet: it has \"tcp\", \"http\", \"none\"",
        ),
    ] {
        assert_service_mistake(added, expected);
    }
}

#[test]
fn sections_of_the_wrong_kind() {
    for (text, expected) in [
        (
            "[interface]\nname = \"eth0\"",
            "1:1: interface is a section that may repeat: begin each with [[interface]]; this is a single section",
        ),
        (
            "interface = [\"eth0\"]",
            "1:14: interface is a section that may repeat: begin each with [[interface]]; this is \"eth0\"",
        ),
        (
            "[[daemon]]",
            "1:1: daemon is a section of its own, once: write [daemon], not a list",
        ),
        (
            "conntrack = 5",
            "1:13: conntrack is a section of its own, once: write [conntrack], not 5",
        ),
    ] {
        assert_mistake(text, expected);
    }
}
