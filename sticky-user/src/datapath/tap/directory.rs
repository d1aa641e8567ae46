//! Whose a captured packet is, by what the maps say now.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use sticky_common::maps;
use sticky_common::types::capture::Event;
use sticky_common::types::{Backend, Frontend, FrontendKeyV4, FrontendKeyV6, addr};

use crate::datapath::Error;
use crate::datapath::pins::Pins;
use crate::datapath::sys::Map;

/// What a packet's headers say of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    /// IP protocol number.
    pub proto: u8,
}

/// Identities of a packet's service and backend, as far as the maps know them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    pub service: Option<u64>,
    pub backend: Option<u64>,
}

/// The maps that say so.
pub struct Directory {
    frontends_v4: Map<FrontendKeyV4, Frontend>,
    frontends_v6: Map<FrontendKeyV6, Frontend>,
    backends: Map<u32, Backend>,
    service_ids: Map<u32, u64>,
    backend_ids: Map<u32, u64>,
}

impl Directory {
    pub fn open(pin_dir: &Path) -> Result<Self, Error> {
        let pins = Pins::open(pin_dir)?;
        Ok(Self {
            frontends_v4: pins.open_map(maps::FRONTENDS_V4)?,
            frontends_v6: pins.open_map(maps::FRONTENDS_V6)?,
            backends: pins.open_map(maps::BACKENDS)?,
            service_ids: pins.open_map(maps::SERVICE_IDS)?,
            backend_ids: pins.open_map(maps::BACKEND_IDS)?,
        })
    }

    /// Looks a packet up; what is not there any more is left out.
    pub fn whose(&self, event: &Event, tuple: Option<Tuple>) -> Whose {
        self.look(event, tuple).unwrap_or_default()
    }

    fn look(&self, event: &Event, tuple: Option<Tuple>) -> io::Result<Whose> {
        let (service, backend) = match tuple {
            _ if event.backend != Event::NO_BACKEND => {
                let service = self.backends.get(&event.backend)?.map(|b| b.service);
                (service, Some(event.backend))
            }
            Some(tuple) if event.direction == Event::IN => (self.of_frontend(tuple)?, None),
            _ => (None, None),
        };
        let identity = |ids: &Map<u32, u64>, index: Option<u32>| -> io::Result<Option<u64>> {
            let found = index.map(|index| ids.get(&index)).transpose()?.flatten();
            Ok(found.filter(|identity| *identity != 0))
        };
        Ok(Whose {
            service: identity(&self.service_ids, service)?,
            backend: identity(&self.backend_ids, backend)?,
        })
    }

    fn of_frontend(&self, Tuple { dst, proto, .. }: Tuple) -> io::Result<Option<u32>> {
        let port = dst.port().to_be_bytes();
        let frontend = match dst.ip() {
            IpAddr::V4(v4) => {
                let key = FrontendKeyV4 { addr: v4.octets(), port, proto, zero: 0 };
                self.frontends_v4.get(&key)?
            }
            IpAddr::V6(v6) => {
                let key =
                    FrontendKeyV6 { addr: addr::from_bytes(v6.octets()), port, proto, zero: 0 };
                self.frontends_v6.get(&key)?
            }
        };
        Ok(frontend.map(|frontend| frontend.service))
    }
}
