//! Links: where they are, in which order, and taking them off at once.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_link_info, bpf_link_type};

use super::{address, bpf, zeroed};

/// Programs that can be at one hook (`BPF_MPROG_MAX` of linux/bpf_mprog.h).
const MOST: usize = 64;

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    pub id: u32,
    pub program: u32,
    /// 0: the interface is gone, or the link was taken off.
    pub ifindex: u32,
    pub xdp: bool,
}

/// Looks at a link of XDP or tcx.
pub fn info(link: BorrowedFd<'_>) -> io::Result<Info> {
    // SAFETY: integers only: all zero is valid.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = link.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_link_info>() as u32;
    attr.info.info = address(&raw mut info);
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let xdp = info.type_ == bpf_link_type::BPF_LINK_TYPE_XDP as u32;
    // SAFETY: the kernel filled the union in for the link's type, or left it zero; both of ours begin with the index.
    let ifindex = unsafe {
        if xdp { info.__bindgen_anon_1.xdp.ifindex } else { info.__bindgen_anon_1.tcx.ifindex }
    };
    Ok(Info { id: info.id, program: info.prog_id, ifindex, xdp })
}

/// All links of this host that XDP programs are held by.
pub fn of_xdp() -> Vec<Info> {
    let mut found = Vec::new();
    let mut id = 0;
    while let Some(next) = next(id) {
        id = next;
        if let Ok(info) = by_id(id).and_then(|link| info(link.as_fd()))
            && info.xdp
        {
            found.push(info);
        }
    }
    found
}

fn next(id: u32) -> Option<u32> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
    bpf(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut attr).ok()?;
    // SAFETY: the kernel wrote the field.
    Some(unsafe { attr.__bindgen_anon_6.next_id })
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
    let fd = bpf(bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Puts another program into a link, in one step.
pub fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_update.link_fd = link.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Takes a link off its interface, at once: closing it alone lets the kernel do so at its leisure.
pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd() as u32;
    match bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) {
        // Its interface is gone already.
        Err(e) if e.raw_os_error() != Some(libc::ENOLINK) => Err(e),
        _ => Ok(()),
    }
}

/// A program at tcx ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub program: u32,
    /// 0: it is there without a link.
    pub link: u32,
}

/// The programs at tcx ingress of an interface, in the order in which they see packets.
pub fn tcx_ingress(ifindex: u32) -> io::Result<Vec<Member>> {
    let (mut programs, mut links) = ([0u32; MOST], [0u32; MOST]);
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = bpf_attach_type::BPF_TCX_INGRESS as u32;
    attr.query.__bindgen_anon_2.count = MOST as u32;
    attr.query.prog_ids = address(programs.as_mut_ptr());
    attr.query.link_ids = address(links.as_mut_ptr());
    match bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) {
        // Nothing was ever there.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
        result => result?,
    };
    // SAFETY: the kernel wrote the count.
    let count = unsafe { attr.query.__bindgen_anon_2.count } as usize;
    let members = programs.into_iter().zip(links).take(count.min(MOST));
    Ok(members.map(|(program, link)| Member { program, link }).collect())
}
