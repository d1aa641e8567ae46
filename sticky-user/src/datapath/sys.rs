//! The bpf(2) commands that aya 0.14 has no call for: batches, maps of maps with a value size set at run time, and what
//! becomes of links.
#![expect(unsafe_code, reason = "bpf(2) takes pointers")]

pub mod links;

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_type};

fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the attribute is whole and zeroed where unused; each caller's pointers outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd as libc::c_int,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers: all zero is valid.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Geometry of a map to be created.
pub struct Geometry {
    pub kind: bpf_map_type,
    pub key: u32,
    pub value: u32,
    pub entries: u32,
}

/// Creates a map; `inner` is the template of a map of maps.
pub fn create(geometry: &Geometry, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.__bindgen_anon_1.map_type = geometry.kind as u32;
    attr.__bindgen_anon_1.key_size = geometry.key;
    attr.__bindgen_anon_1.value_size = geometry.value;
    attr.__bindgen_anon_1.max_entries = geometry.entries;
    if let Some(inner) = inner {
        attr.__bindgen_anon_1.inner_map_fd = inner.as_raw_fd() as u32;
    }
    let fd = bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn element(fd: BorrowedFd<'_>, key: u64, value: u64) -> bpf_attr {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = fd.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = key;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value;
    attr
}

fn address<T>(of: *const T) -> u64 {
    of as u64
}

/// Sets the one value of an array to a slice that fills it.
pub fn fill_single<T: Pod>(fd: BorrowedFd<'_>, value: &[T]) -> io::Result<()> {
    let key = 0u32;
    bpf(
        bpf_cmd::BPF_MAP_UPDATE_ELEM,
        &mut element(fd, address(&raw const key), address(value.as_ptr())),
    )
    .map(drop)
}

/// Reads the one value of an array of `len` elements of `T`.
pub fn read_single<T: Pod>(fd: BorrowedFd<'_>, len: usize) -> io::Result<Vec<T>> {
    let key = 0u32;
    let mut value: Vec<T> = Vec::with_capacity(len);
    bpf(
        bpf_cmd::BPF_MAP_LOOKUP_ELEM,
        &mut element(fd, address(&raw const key), address(value.as_mut_ptr())),
    )?;
    // SAFETY: the kernel wrote the whole value, whose size the caller made `len` elements; `T` takes any bits.
    unsafe { value.set_len(len) };
    Ok(value)
}

/// A value at the beginning of some bytes, and the bytes after it.
pub fn split<T: Pod>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (head, rest) = bytes.split_at_checked(size_of::<T>())?;
    // SAFETY: there are as many bytes as a value has, and `T` takes any bits.
    Some((unsafe { head.as_ptr().cast::<T>().read_unaligned() }, rest))
}

/// Opens what is pinned at a path.
pub fn get(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = address(path.as_ptr());
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Pins a map at a path.
pub fn pin(map: &OwnedFd, at: &Path) -> io::Result<()> {
    let path = CString::new(at.as_os_str().as_bytes())?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = address(path.as_ptr());
    attr.__bindgen_anon_4.bpf_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// A map of plain keys and values.
pub struct Map<K, V> {
    fd: OwnedFd,
    entries: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// The sizes must be the map's own.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, entries: PhantomData }
    }

    /// A lookup by system call marks nothing as recently used.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let mut attr = element(self.fd.as_fd(), address(key), address(value.as_mut_ptr()));
        match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
            // SAFETY: the kernel wrote the value.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn set(&self, key: &K, value: &V) -> io::Result<()> {
        bpf(
            bpf_cmd::BPF_MAP_UPDATE_ELEM,
            &mut element(self.fd.as_fd(), address(key), address(value)),
        )
        .map(drop)
    }

    pub fn delete(&self, key: &K) -> io::Result<()> {
        match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut element(self.fd.as_fd(), address(key), 0)) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
            _ => Ok(()),
        }
    }

    /// Deletes an entry that still has this value.
    pub fn delete_if(&self, key: &K, value: &V) -> io::Result<()>
    where
        V: PartialEq,
    {
        if self.get(key)?.as_ref() == Some(value) { self.delete(key) } else { Ok(()) }
    }

    /// Sets many in one call: a map of maps then waits for one grace period, not for one each.
    pub fn set_all(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut attr = zeroed();
        attr.batch.map_fd = self.fd.as_raw_fd() as u32;
        attr.batch.keys = address(keys.as_ptr());
        attr.batch.values = address(values.as_ptr());
        attr.batch.count = keys.len().min(values.len()) as u32;
        bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr).map(drop)
    }

    /// Reads all entries, `chunk` per call. Entries that come or go meanwhile may or may not be among them.
    pub fn for_each(&self, chunk: u32, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        let mut keys: Vec<K> = Vec::with_capacity(chunk as usize);
        let mut values: Vec<V> = Vec::with_capacity(chunk as usize);
        // Large enough for any map's position: a hash's is its bucket, an array's its key.
        let (mut from, mut to) = ([0u64; 8], [0u64; 8]);
        let mut first = true;
        loop {
            let mut attr = zeroed();
            attr.batch.map_fd = self.fd.as_raw_fd() as u32;
            attr.batch.in_batch = if first { 0 } else { address(from.as_ptr()) };
            attr.batch.out_batch = address(to.as_mut_ptr());
            attr.batch.keys = address(keys.as_mut_ptr());
            attr.batch.values = address(values.as_mut_ptr());
            attr.batch.count = chunk;
            let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
            let end = matches!(&result, Err(e) if e.raw_os_error() == Some(libc::ENOENT));
            if !end {
                result?;
            }
            // SAFETY: the kernel wrote this many of each (it says so also at the end), at most `chunk`; plain data.
            unsafe {
                let count = attr.batch.count.min(chunk) as usize;
                keys.set_len(count);
                values.set_len(count);
            }
            for (key, value) in keys.iter().zip(&values) {
                each(key, value);
            }
            if end {
                return Ok(());
            }
            (from, first) = (to, false);
        }
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
