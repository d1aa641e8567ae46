use super::file::parse;
use super::*;

fn config(settings: Settings) -> Config {
    Config::new(settings).unwrap()
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = config(Settings::default());
    assert_eq!(config.interfaces, Interfaces::DefaultRoute);
    assert_eq!(config.xdp_mode, XdpMode::Auto);
    assert_eq!(config.provider, ProviderKind::Swarm);
    assert_eq!(config.http, Some("[::]:80".parse().unwrap()));
    assert_eq!(config.admin, Some("127.0.0.1:9880".parse().unwrap()));
    assert_eq!(config.places.socket, PathBuf::from("/run/sticky/sticky.sock"));
    assert_eq!(config.places.state_dir, PathBuf::from("/var/lib/sticky"));
    assert_eq!(config.places.pin_dir, PathBuf::from("/sys/fs/bpf/sticky"));
    assert_eq!(config.table_size.get(), 16381);
    assert_eq!(config.max_clients, 1_000_000);
    assert_eq!(config.drain_timeout, Duration::from_secs(30));
    assert!(!config.takeover && !config.hide_info_headers);
}

#[test]
fn a_file_has_every_key() {
    let text = r#"
        iface = ["eth0", "eth1"]
        xdp-mode = "generic"
        vip = "198.51.100.1, 2001:db8::1"
        table-size = 65537
        max-clients = 10
        provider = "file:services.toml"
        docker-host = "unix:///run/docker.sock"
        service-cluster = "blue"
        http = ":8080"
        https = "none"
        cookie-key-file = "/etc/sticky/keys"
        trusted-proxies = ["10.0.0.0/8", "2001:db8::5"]
        hide-info-headers = true
        drain-timeout = "1m"
        admin = "none"
        log-format = "json"
        takeover = true
        socket = "/tmp/s"
        state-dir = "/tmp/st"
        pin-dir = "/sys/fs/bpf/x"
    "#;
    for key in super::settings::KEYS {
        assert!(text.contains(&format!(" {key} = ")), "{key} is not tried");
    }
    let config = config(parse(text).unwrap());
    assert_eq!(config.interfaces, Interfaces::Named(vec!["eth0".into(), "eth1".into()]));
    assert_eq!(config.vips.len(), 2);
    assert_eq!(config.table_size.get(), 65537);
    assert_eq!(config.http, Some("[::]:8080".parse().unwrap()));
    assert_eq!(config.admin, None);
    assert_eq!(config.trusted_proxies[1].to_string(), "2001:db8::5/128");
    assert_eq!(config.drain_timeout, Duration::from_secs(60));
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.places.pin_dir, PathBuf::from("/sys/fs/bpf/x"));
    let underscores = "xdp_mode = \"generic\"\nhide_info_headers = true\nlog_format = \"json\"\n";
    assert_eq!(parse(underscores).unwrap().xdp_mode, Some(XdpMode::Generic));
}

#[test]
fn each_mistake_of_a_file_is_reported_where_it_is() {
    let text = "htpp = \":80\"\nadmin = \"nowhere\"\niface = 7\n[deep]\nx = 1\nmax-clients = -1\n";
    let errors = parse(text).unwrap_err();
    let lines: Vec<_> =
        errors.iter().map(|(at, _)| text[..*at].matches('\n').count() + 1).collect();
    assert_eq!(lines, [1, 2, 3, 4], "{errors:?}");
    assert_eq!(errors[0].1, "unknown key `htpp`; did you mean `http`?");
    assert!(errors[1].1.starts_with("admin: `nowhere`: write an address"), "{errors:?}");
    assert_eq!(errors[2].1, "iface: expected a string or a list of strings");
    assert!(parse("http = \":80\"\nhttp = \":81\"\n").is_err());
    assert!(parse("http = ").is_err());
}

#[test]
fn what_cannot_be_is_refused() {
    let wrong = |text: &str| Config::new(parse(text).unwrap()).unwrap_err()[0].to_string();
    assert!(wrong("https = \":443\"").starts_with("https: TLS is not served"));
    assert!(wrong("iface = [\"none\", \"eth0\"]").starts_with("iface: `none` stands alone"));
    assert!(wrong("iface = \"a-name-that-is-too-long\"").starts_with("iface: "));
    assert!(wrong("vip = \"127.0.0.1\"").starts_with("vip: 127.0.0.1"));
    assert!(wrong("provider = \"file:\"").starts_with("provider: "));
    assert!(wrong("max-clients = 0").starts_with("max-clients: "));
    assert!(wrong("http = \":80\"\nadmin = \":80\"").starts_with("admin: "));
}

#[test]
fn the_higher_source_wins_key_by_key() {
    let high = parse("http = \":1\"\niface = \"none\"").unwrap();
    let low = parse("http = \":2\"\nmax-clients = 5\niface = \"eth0\"").unwrap();
    let config = config(high.or(low));
    assert_eq!(config.http.map(|addr| addr.port()), Some(1));
    assert_eq!(config.max_clients, 5);
    assert_eq!(config.interfaces, Interfaces::None);
}
