//! What each proxy is told. `DIR` stands for its own directory.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::super::client::HOST;
use super::{Kind, Mode};

/// The file that a proxy of this kind reads.
pub fn text(kind: Kind, addr: SocketAddr, mode: Mode, backends: &[SocketAddr]) -> String {
    match kind {
        Kind::Sticky => sticky(backends),
        Kind::Nginx => nginx(addr, mode, backends, ""),
        Kind::NginxTells => nginx(addr, mode, backends, NGINX_TELLS),
        Kind::Haproxy => haproxy(addr, mode, backends, ""),
        Kind::HaproxyTells => haproxy(addr, mode, backends, HAPROXY_TELLS),
        Kind::Envoy => envoy(addr, mode, backends),
        Kind::Caddy => caddy(addr, mode, backends),
    }
}

fn sticky(backends: &[SocketAddr]) -> String {
    service("bench", HOST, backends)
}

/// A service of sticky's file.
pub fn service(name: &str, host: &str, backends: &[SocketAddr]) -> String {
    let all: Vec<String> = backends.iter().map(|addr| format!("{:?}", addr.to_string())).collect();
    format!(
        "[[service]]\nname = \"{name}\"\nbackends = [{}]\n[service.labels]\n\
         \"com.docker.lb.hosts\" = \"{host}\"\n\"com.docker.lb.sticky_session_cookie\" = \"session\"\n",
        all.join(", ")
    )
}

/// What sticky adds to each request and, but for `X-Forwarded-For`, neither of these does by itself; and to each response.
const NGINX_TELLS: &str = "\
    proxy_set_header X-Request-ID $request_id;
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $host;
    proxy_set_header X-Forwarded-Port $server_port;
    proxy_set_header Forwarded \"for=$remote_addr;host=$host;proto=$scheme\";
    add_header x-request-id $request_id always;
    add_header x-proxy-id $hostname always;
    add_header x-server-info nginx always;
    add_header x-upstream-addr $upstream_addr always;
    add_header x-upstream-response-time $upstream_response_time always;
";
const HAPROXY_TELLS: &str = "    unique-id-format %[uuid()]
    unique-id-header X-Request-ID
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header Forwarded for=%[src];host=%[req.hdr(host)];proto=http
    http-response set-header x-request-id %[unique-id]
    http-response set-header x-proxy-id %[hostname]
    http-response set-header x-server-info HAProxy
    http-response set-header x-upstream-addr %si:%sp
    http-response set-header x-upstream-response-time %Tr
";

fn nginx(addr: SocketAddr, mode: Mode, backends: &[SocketAddr], tells: &str) -> String {
    let servers: String = backends.iter().map(|addr| format!("server {addr};\n")).collect();
    // Written in batches, as sticky's is.
    let log = if mode.access_log { "DIR/access.log combined buffer=64k flush=1s" } else { "off" };
    let (workers, port) = match mode.cpus {
        1 => ("master_process off;".to_owned(), ""),
        cpus => (format!("worker_processes {cpus};"), " reuseport"),
    };
    format!(
        "daemon off;\n{workers}\nuser root;\nworker_rlimit_nofile 20000;\npid DIR/pid;\nerror_log stderr;\n\
         events {{ worker_connections 18000; }}\n\
         http {{\naccess_log {log};\nkeepalive_requests 100000000;\nkeepalive_timeout 75s;\n\
         client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;\n\
         upstream app {{\nhash $cookie_session consistent;\n{servers}keepalive 8192;\nkeepalive_requests 100000000;\n}}\n\
         server {{\nlisten {addr} backlog=4096{port};\nserver_name {HOST};\nlocation / {{\nproxy_pass http://app;\nproxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\nproxy_set_header Host $host;\nproxy_set_header X-Forwarded-For $remote_addr;\n{tells}}}\n}}\n}}\n"
    )
}

fn haproxy(addr: SocketAddr, mode: Mode, backends: &[SocketAddr], tells: &str) -> String {
    let servers: String = (0..)
        .zip(backends)
        .map(|(number, addr)| format!("    server s{number} {addr} cookie s{number} check\n"))
        .collect();
    let log = if mode.access_log { "    log global\n    option httplog\n" } else { "" };
    let threads = mode.cpus;
    format!(
        "global\n    maxconn 9000\n    nbthread {threads}\n    log stdout format raw local0 info\n\
         defaults\n    mode http\n{log}    timeout connect 5s\n    timeout client 75s\n    timeout server 75s\n\
         frontend f\n    bind {addr} backlog 4096\n    option forwardfor\n{tells}    default_backend b\n\
         backend b\n    balance leastconn\n    http-reuse always\n    cookie SRV insert indirect nocache\n{servers}"
    )
}

/// JSON is YAML too.
fn envoy(addr: SocketAddr, mode: Mode, backends: &[SocketAddr]) -> String {
    const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
    let socket = |addr: &SocketAddr| serde_json::json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}});
    let endpoints: Vec<_> = backends
        .iter()
        .map(|addr| serde_json::json!({"endpoint": {"address": socket(addr)}}))
        .collect();
    let mut log = Vec::new();
    if mode.access_log {
        log.push(serde_json::json!({"name": "envoy.access_loggers.file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "DIR/access.log"}}));
    }
    let most = 20_000;
    serde_json::json!({"static_resources": {
        "listeners": [{"address": socket(&addr), "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
            "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "bench", "access_log": log,
            "route_config": {"virtual_hosts": [{"name": "bench", "domains": [HOST],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]},
            "http_filters": [
                {"name": "envoy.filters.http.stateful_session", "typed_config": {
                    "@type": format!("{FILTERS}.http.stateful_session.v3.StatefulSession"),
                    "session_state": {"name": "envoy.http.stateful_session.cookie", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState",
                        "cookie": {"name": "envoy_lb", "path": "/", "ttl": "3600s"}}}}},
                {"name": "envoy.filters.http.router", "typed_config": {"@type": format!("{FILTERS}.http.router.v3.Router")}},
            ],
        }}]}]}],
        "clusters": [{
            "name": "app", "type": "STATIC", "connect_timeout": "5s", "lb_policy": "LEAST_REQUEST",
            "circuit_breakers": {"thresholds": [{"max_connections": most, "max_pending_requests": most, "max_requests": most}]},
            "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": endpoints}]},
        }],
    }})
    .to_string()
}

fn caddy(addr: SocketAddr, mode: Mode, backends: &[SocketAddr]) -> String {
    let mut all = String::new();
    for addr in backends {
        // Writing to a string cannot fail.
        let _ = write!(all, " {addr}");
    }
    let log = if mode.access_log { "log {\noutput file DIR/access.log\n}\n" } else { "" };
    format!(
        "{{\nadmin off\nauto_https off\nstorage file_system DIR/data\nlog {{\nlevel ERROR\n}}\n}}\n\
         http://{HOST}:{} {{\nbind {}\n{log}reverse_proxy{all} {{\nlb_policy cookie\n\
         transport http {{\nkeepalive_idle_conns 8192\nkeepalive_idle_conns_per_host 8192\n}}\n}}\n}}\n",
        addr.port(),
        addr.ip()
    )
}
