//! For tests: a disk in memory that loses power. What was written and not synced may be on it, sector by
//! sector, or not.
//!
//! A process reads what it wrote (the kernel's pages); the disk holds what was synced, and any part of the rest. Names
//! are the same: created, renamed and removed at once for the process, on disk once the directory was synced.

use crate::disk::{Disk, File};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::rc::Rc;

/// What a disk writes whole or not at all, unless it destroys the block around it.
pub const SECTOR: usize = 512;
const BLOCK: usize = 4096;
/// Up to so many unsynced writes, every subset of them is a crash state.
const SUBSETS_OF: usize = 9;
/// Beyond it so many are drawn, beside all prefixes and all subsets with one write or without one.
const DRAWN: usize = 64;

#[derive(Clone, Debug)]
enum Pending {
    Sector { file: usize, offset: usize, bytes: Vec<u8> },
    Length { file: usize, length: usize },
    Names { remove: Vec<String>, link: Vec<(String, usize)> },
}

#[derive(Clone, Debug, Default)]
struct State {
    /// As the process reads them.
    pages: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
    /// What is on disk for sure.
    disk: Vec<Vec<u8>>,
    disk_names: BTreeMap<String, usize>,
    pending: Vec<Pending>,
    calls: usize,
    power_fails_at: Option<usize>,
    sync_fails_at: Option<usize>,
    is_off: bool,
    syncs: usize,
    /// How many bytes files may have.
    room: Option<usize>,
    unreadable: Option<(String, usize)>,
}

/// The disk; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Rc<RefCell<State>>);

/// What a loss of power leaves of the writes that were not synced.
#[derive(Clone, Debug)]
pub struct Crash {
    /// By write: whether it is on the disk.
    survives: Vec<bool>,
    /// The write whose block is destroyed.
    destroyed: Option<usize>,
}

/// An open file.
#[derive(Debug)]
pub struct SimFile(SimDisk, usize);

fn off() -> Error {
    Error::other("the power is off")
}

impl SimDisk {
    /// Power fails in this call that changes something, counted from 0.
    pub fn fail_power_at(&self, call: usize) {
        self.0.borrow_mut().power_fails_at = Some(call);
    }

    /// This sync of a file fails, counted from 0: what was written stays in the pages, and is never written again.
    pub fn fail_sync_at(&self, sync: usize) {
        self.0.borrow_mut().sync_fails_at = Some(sync);
    }

    pub fn set_room(&self, bytes: Option<usize>) {
        self.0.borrow_mut().room = bytes;
    }

    /// This block can't be read.
    pub fn lose_block(&self, name: &str, block: usize) {
        self.0.borrow_mut().unreadable = Some((name.into(), block));
    }

    pub fn is_off(&self) -> bool {
        self.0.borrow().is_off
    }

    pub fn calls(&self) -> usize {
        self.0.borrow().calls
    }

    pub fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.0.borrow();
        state.pages[state.names[name]].clone()
    }

    /// Changes bytes of a file, on disk and in the pages.
    pub fn change(&self, name: &str, change: impl Fn(&mut Vec<u8>)) {
        let mut state = self.0.borrow_mut();
        let file = state.names[name];
        change(&mut state.pages[file]);
        change(&mut state.disk[file]);
    }

    /// A copy, with nothing unsynced.
    pub fn copy(&self) -> SimDisk {
        let state = self.0.borrow();
        let (pages, names) = (state.pages.clone(), state.names.clone());
        SimDisk::holding(pages, names)
    }

    fn holding(files: Vec<Vec<u8>>, names: BTreeMap<String, usize>) -> SimDisk {
        let state =
            State { pages: files.clone(), names: names.clone(), disk: files, disk_names: names, ..State::default() };
        SimDisk(Rc::new(RefCell::new(state)))
    }

    /// Every state in which a loss of power at this instant may leave the disk, up to the bounds above.
    pub fn crash_states(&self, draw: impl FnMut() -> bool) -> Vec<SimDisk> {
        let state = self.0.borrow();
        self.crashes(draw).iter().map(|crash| state.after(crash)).collect()
    }

    /// What each of these states consists of.
    pub fn crashes(&self, mut draw: impl FnMut() -> bool) -> Vec<Crash> {
        let state = self.0.borrow();
        let count = state.pending.len();
        let mut choices: Vec<Vec<bool>> = Vec::new();
        if count <= SUBSETS_OF {
            choices.extend((0..1usize << count).map(|bits| (0..count).map(|at| bits >> at & 1 == 1).collect()));
        } else {
            choices.extend((0..=count).map(|prefix| (0..count).map(|at| at < prefix).collect()));
            choices.extend((0..count).map(|only| (0..count).map(|at| at == only).collect()));
            choices.extend((0..count).map(|without| (0..count).map(|at| at != without).collect()));
            choices.extend((0..DRAWN).map(|_| (0..count).map(|_| draw()).collect()));
        }
        let mut crashes: Vec<_> = choices.into_iter().map(|survives| Crash { survives, destroyed: None }).collect();
        for destroyed in 0..count {
            if matches!(state.pending[destroyed], Pending::Sector { .. }) {
                let crash = |others| Crash { survives: vec![others; count], destroyed: Some(destroyed) };
                crashes.extend([false, true].map(crash));
            }
        }
        crashes
    }

    /// The disk after such a crash.
    pub fn after(&self, crash: &Crash) -> SimDisk {
        self.0.borrow().after(crash)
    }

    /// A state in which a loss of power at this instant leaves the disk: each write that was not synced is on it if
    /// `survives`.
    pub fn crash(&self, mut survives: impl FnMut() -> bool) -> SimDisk {
        let state = self.0.borrow();
        state.after(&Crash { survives: state.pending.iter().map(|_| survives()).collect(), destroyed: None })
    }

    /// Does what a call changes, unless power is off, or fails in it.
    fn change_by<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.0.borrow_mut();
        if state.is_off {
            return Err(off());
        }
        let call = state.calls;
        state.calls += 1;
        let fails = state.power_fails_at == Some(call);
        let changed = change(&mut state);
        if fails {
            state.is_off = true;
            return Err(off());
        }
        changed
    }
}

/// Puts a write on the disk.
fn apply(pending: &Pending, files: &mut [Vec<u8>], names: &mut BTreeMap<String, usize>) {
    match pending {
        Pending::Sector { file, offset, bytes } => {
            let content = &mut files[*file];
            content.resize(content.len().max(offset + bytes.len()), 0);
            content[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Pending::Length { file, length } => files[*file].resize(*length, 0),
        Pending::Names { remove, link } => {
            names.retain(|name, _| !remove.contains(name));
            names.extend(link.iter().cloned());
        }
    }
}

impl State {
    fn after(&self, crash: &Crash) -> SimDisk {
        let (choice, destroyed) = (&crash.survives, crash.destroyed);
        let (mut files, mut names) = (self.disk.clone(), self.disk_names.clone());
        for (pending, _) in self.pending.iter().zip(choice).filter(|(_, chosen)| **chosen) {
            apply(pending, &mut files, &mut names);
        }
        if let Some(Pending::Sector { file, offset, .. }) = destroyed.map(|at| &self.pending[at]) {
            let block = offset / BLOCK * BLOCK;
            let end = files[*file].len().min(block + BLOCK);
            files[*file].get_mut(block..end).unwrap_or_default().fill(0xa5);
        }
        SimDisk::holding(files, names)
    }

    /// Gives these names others, in one step; those in a directory are given as names with a slash.
    fn rename(&mut self, to: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let mut link = Vec::new();
        for (name, file) in &self.names {
            link.extend(to(name).map(|to| (name.clone(), (to, *file))));
        }
        let (remove, link): (Vec<String>, Vec<_>) = link.into_iter().unzip();
        if link.is_empty() {
            return Err(ErrorKind::NotFound.into());
        }
        let pending = Pending::Names { remove, link };
        apply(&pending, &mut [], &mut self.names);
        self.pending.push(pending);
        Ok(())
    }

    fn used(&self) -> usize {
        self.names.values().map(|file| self.pages[*file].len()).sum()
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self) -> Result<Vec<String>> {
        let mut names = self.names();
        names.iter_mut().for_each(|name| name.truncate(name.find('/').unwrap_or(name.len())));
        names.dedup(); // one directory's names stand side by side
        Ok(names)
    }

    fn open(&self, name: &str) -> Result<SimFile> {
        let file = self.0.borrow().names.get(name).copied();
        file.map(|file| SimFile(self.clone(), file)).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> Result<SimFile> {
        let file = self.change_by(|state| {
            if state.names.contains_key(name) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            let file = state.pages.len();
            state.pages.push(Vec::new());
            state.disk.push(Vec::new());
            state.names.insert(name.into(), file);
            state.pending.push(Pending::Names { remove: Vec::new(), link: vec![(name.into(), file)] });
            Ok(file)
        })?;
        Ok(SimFile(self.clone(), file))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.change_by(|state| {
            state.rename(&|name| {
                let rest = name.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'));
                Some(to.to_owned() + rest?)
            })
        })
    }

    fn move_into(&self, directory: &str, names: &[String]) -> Result<()> {
        for moved in names {
            self.change_by(|state| state.rename(&|name| (name == moved).then(|| format!("{directory}/{name}"))))?;
        }
        self.sync()
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.change_by(|state| {
            state.names.remove(name).ok_or(ErrorKind::NotFound)?;
            state.pending.push(Pending::Names { remove: vec![name.into()], link: Vec::new() });
            Ok(())
        })
    }

    fn sync(&self) -> Result<()> {
        self.change_by(|state| {
            if state.power_fails_at != Some(state.calls - 1) {
                state.pending.retain(|pending| !matches!(pending, Pending::Names { .. }));
                state.disk_names = state.names.clone();
            }
            Ok(())
        })
    }
}

impl File for SimFile {
    fn length(&self) -> Result<u64> {
        Ok(self.0.0.borrow().pages[self.1].len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let state = self.0.0.borrow();
        let offset = offset as usize;
        if let Some((name, block)) = &state.unreadable
            && state.names.get(name) == Some(&self.1)
            && offset < (block + 1) * BLOCK
            && offset + bytes.len() > block * BLOCK
        {
            return Err(Error::other("the disk can't read this block"));
        }
        let content = state.pages[self.1].get(offset..offset + bytes.len());
        bytes.copy_from_slice(content.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let (file, start) = (self.1, offset as usize);
        self.0.change_by(|state| {
            let grown = (start + bytes.len()).saturating_sub(state.pages[file].len());
            if grown > 0 && state.room.is_some_and(|room| state.used() + grown > room) {
                return Err(ErrorKind::StorageFull.into());
            }
            let end = state.pages[file].len().max(start + bytes.len());
            state.pages[file].resize(end, 0);
            state.pages[file][start..start + bytes.len()].copy_from_slice(bytes);
            for sector in start / SECTOR..(start + bytes.len()).div_ceil(SECTOR) {
                let offset = sector * SECTOR;
                let now = state.pages[file][offset..end.min(offset + SECTOR)].to_vec();
                // A sector that changes nothing makes no other crash state, unless a write of it is pending.
                let is_pending = |pending: &Pending| match pending {
                    Pending::Sector { file: of, offset: at, .. } => (*of, *at) == (file, offset),
                    _ => false,
                };
                let on_disk = state.disk[file].get(offset..offset + now.len());
                if on_disk != Some(&now) || state.pending.iter().any(is_pending) {
                    state.pending.push(Pending::Sector { file, offset, bytes: now });
                }
            }
            Ok(())
        })
    }

    fn allocate(&self, length: u64) -> Result<()> {
        let (file, length) = (self.1, length as usize);
        self.0.change_by(|state| {
            if state.room.is_some_and(|room| state.used() + length > room) {
                state.pages[file].resize(length / 2, 0);
                return Err(ErrorKind::StorageFull.into());
            }
            state.pages[file].resize(length, 0);
            state.pending.push(Pending::Length { file, length });
            Ok(())
        })
    }

    fn truncate(&self, length: u64) -> Result<()> {
        let (file, length) = (self.1, length as usize);
        self.0.change_by(|state| {
            state.pages[file].resize(length, 0);
            state.pending.push(Pending::Length { file, length });
            Ok(())
        })
    }

    fn sync(&self) -> Result<()> {
        let file = self.1;
        self.0.change_by(|state| {
            if state.power_fails_at == Some(state.calls - 1) {
                return Ok(());
            }
            let sync = state.syncs;
            state.syncs += 1;
            let fails = state.sync_fails_at == Some(sync);
            let is_mine = |pending: &Pending| {
                matches!(pending, Pending::Sector { file: of, .. } | Pending::Length { file: of, .. } if *of == file)
            };
            let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut state.pending).into_iter().partition(is_mine);
            state.pending = others;
            if fails {
                return Err(Error::other("the disk did not take it"));
            }
            for pending in &mine {
                apply(pending, &mut state.disk, &mut BTreeMap::new());
            }
            Ok(())
        })
    }
}
