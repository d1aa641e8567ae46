use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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

    let mut pipe = received.unpack().unwrap();
    let of = crate::model::State::Up;
    let routes = Book::default().publish(&in_force(&["a"], of));
    let stats = std::sync::Arc::clone(&routes.service("s").unwrap().backends["a"]);
    let carrying = tokio::spawn(async move { pipe.run(&stats).await });
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
async fn what_is_no_connection_is_refused() {
    let broken: [&[u8]; 4] = [&[0, 0], &[0, 0, 0, 4, 0, 0, 0, 9], &[0xff; 4], &[0, 0, 0, 2, 1, 1]];
    for bytes in broken {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        here.write_all(bytes).unwrap();
        drop(here);
        assert!(receive(&mut there).is_err(), "{bytes:?}");
    }
}
