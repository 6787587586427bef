//! Copies a whole folder of files to the backend of a prompt that takes it (promise R4).
//!
//! A node that takes a folder uses all files in it, by their names. So the copies keep their names.
//! If the folder already contains other clients' files, the copies go into a new folder beside it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use super::super::copy_file;
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::front::error::GatewayError;
use crate::routing::files::Within;
use crate::routing::ids::{FileRef, Folder, Located};
use crate::shared::Shared;

/// The name of a folder on `target` that has these files and no other known ones.
///
/// # Errors
/// A file could not be copied; see [`copy_file::bring`].
pub(super) async fn bring(
    front: &Front,
    (folder, files): (&str, &[Located]),
    target: &Arc<Backend>,
) -> Result<String, GatewayError> {
    if !has_others(&front.shared, (folder, files), target)
        && bring_into(front, folder, files, target).await?
    {
        return Ok(folder.to_owned());
    }
    let own = own_folder(&front.shared, folder, files);
    match bring_into(front, &own, files, target).await? {
        true => Ok(own),
        false => Err(GatewayError::InputNotCopied {
            file: format!("{folder}/"),
            from: files.first().map_or_else(String::new, |at| name_of(&front.shared, at)),
            backend: target.name().to_string(),
            why: format!("the folder {own} has other files there"),
        }),
    }
}

/// True if every file has its name in that folder now.
async fn bring_into(
    front: &Front,
    folder: &str,
    files: &[Located],
    target: &Arc<Backend>,
) -> Result<bool, GatewayError> {
    for original in files {
        let Some(name) = FileRef::new(Folder::Input, folder, original.file.filename()) else {
            return Ok(false);
        };
        if original.backend == target.id && original.file == name {
            continue;
        }
        if copy_file::bring_as(front, (original, &name), target).await? != name {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True if the folder has other files than these and their copies.
fn has_others(shared: &Shared, (folder, files): (&str, &[Located]), target: &Backend) -> bool {
    let mut all = shared.records.all_files();
    let is_other = |within: &Within| !files.contains(&within.at);
    all.any(|known| known.in_subfolder_of(folder, target.id, &[]).iter().any(is_other))
}

/// A folder for these files in their current state.
fn own_folder(shared: &Shared, folder: &str, files: &[Located]) -> String {
    let mut written = vec![None; files.len()];
    shared.records.look_up(files.iter().map(|at| at.file.path()), |known, place| {
        let holder = files.get(place).and_then(|at| known.holder(at));
        if let Some(written) = written.get_mut(place) {
            *written = holder.map(|holder| (holder.order, holder.written));
        }
    });
    let mut hasher = DefaultHasher::new();
    for (at, written) in files.iter().zip(written) {
        (name_of(shared, at), at.file.path(), written).hash(&mut hasher);
    }
    format!("{}-mooring-{:08x}", folder, hasher.finish() & 0xffff_ffff)
}

fn name_of(shared: &Shared, at: &Located) -> String {
    shared.fleet.get(at.backend).name().to_string()
}
