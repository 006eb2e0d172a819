//! What happens in folders, as the kernel tells it.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::sync::watch;

/// Counts files that are made, written, renamed and removed. Ends on drop.
pub struct FileEvents {
    count: watch::Sender<usize>,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FileEvents {
    /// Watches folders from now on.
    ///
    /// # Panics
    /// Where there is none, or one is missing.
    #[must_use]
    pub fn watch(folders: &[PathBuf]) -> Self {
        let descriptor = inotify::init(CreateFlags::CLOEXEC).expect("inotify");
        let changes = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVE
            | WatchFlags::DELETE;
        for folder in folders {
            inotify::add_watch(&descriptor, folder, changes).expect("a folder to watch");
        }
        let (count, stop) = (watch::Sender::new(0), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (count, stop) = (count.clone(), Arc::clone(&stop));
            thread::spawn(move || tell(&descriptor, &count, &stop))
        };
        let folder = folders.first().expect("a folder").clone();
        Self { count, folder, stop, thread: Some(thread) }
    }

    /// Waits until so many more things have happened.
    ///
    /// # Panics
    /// Where the kernel tells no more.
    pub async fn happened(&self, times: usize) {
        let mut count = self.count.subscribe();
        let enough = *count.borrow() + times;
        count.wait_for(|count| *count >= enough).await.expect("the sender is ours");
    }
}

fn tell(descriptor: &OwnedFd, count: &watch::Sender<usize>, stop: &AtomicBool) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(descriptor, &mut buffer);
    while events.next().is_ok() && !stop.load(Ordering::SeqCst) {
        count.send_modify(|count| *count += 1);
    }
}

impl Drop for FileEvents {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        wake(&self.folder);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Something that happens in the folder: its permissions are set to what they are.
fn wake(folder: &Path) {
    drop(fs::metadata(folder).and_then(|metadata| fs::set_permissions(folder, metadata.permissions())));
}
