use std::net::Shutdown;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::relay::routes::{Book, tests::in_force};

/// Two ends of a TCP connection.
async fn ends() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, connected) = tokio::join!(listener.accept(), connecting);
    (accepted.unwrap().0, connected.unwrap())
}

fn label() -> Label {
    Label {
        service: "s".to_owned(),
        backend: "a".to_owned(),
        client: "198.51.100.7:1234".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_connection_goes_on_elsewhere_with_what_was_held() {
    let (client, mut outer) = ends().await;
    let (upstream, mut backend) = ends().await;
    let mut pipe = Pipe::new(client, upstream);
    pipe.to_backend = Way { held: b"to the backend ".to_vec(), ended: false };
    pipe.to_client = Way { held: b"to the client".to_vec(), ended: true };
    let (mut here, mut there) = UnixStream::pair().unwrap();
    send(&mut here, label(), &pipe).unwrap();
    drop((here, pipe));
    let (told, received) = receive(&mut there).unwrap().unwrap();
    assert_eq!(told, label());
    assert!(receive(&mut there).unwrap().is_none());

    let carrying = carry(received.unpack().unwrap());
    let mut text = String::new();
    outer.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "to the client");
    outer.write_all(b"and more").await.unwrap();
    outer.shutdown().await.unwrap();
    text.clear();
    backend.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "to the backend and more");
    carrying.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_comes_over_after_both_sides_have_closed_is_read_to_its_end() {
    let (client, mut outer) = ends().await;
    let (upstream, mut backend) = ends().await;
    outer.shutdown().await.unwrap();
    let mut pipe = Pipe::new(client, upstream);
    pipe.to_backend.ended = true;
    pipe.upstream.shutdown().await.unwrap();
    assert_eq!(backend.read(&mut [0]).await.unwrap(), 0);
    backend.write_all(b"the last words").await.unwrap();
    backend.shutdown().await.unwrap();
    // Nothing tells that an end has come, as long as what came before it is not read.
    while SockRef::from(&pipe.upstream).shutdown(Shutdown::Write).is_ok() {
        tokio::task::yield_now().await;
    }
    let carrying = carry(pipe);
    let mut text = String::new();
    outer.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "the last words");
    carrying.await.unwrap().unwrap();
}

/// Carries for a backend that is up.
fn carry(mut pipe: Pipe) -> JoinHandle<io::Result<()>> {
    let routes = Book::default().publish(&in_force(&["a"], crate::model::State::Up));
    let backend = std::sync::Arc::clone(&routes.service("s").unwrap().backends["a"]);
    tokio::spawn(async move { pipe.run(&backend).await })
}

#[tokio::test]
async fn what_is_no_connection_is_refused() {
    let broken: [&[u8]; 4] = [&[0, 0], &[0, 0, 0, 4, 0, 0, 0, 9], &[0xff; 4], &[0, 0, 0, 2, 1, 1]];
    for bytes in broken {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        here.write_all(bytes).unwrap();
        drop(here);
        assert!(receive(&mut there).is_err(), "{bytes:?}");
    }
}
