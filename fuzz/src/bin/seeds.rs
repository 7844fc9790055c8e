//! Writes the seeds below the folder that is named: `FOLDER/TARGET/seed-NAME`.

use std::path::PathBuf;
use std::{env, fs};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).unwrap_or("corpus".into()));
    for (target, name, seed) in parlor_fuzz::seeds::all() {
        fs::create_dir_all(folder.join(target))?;
        fs::write(folder.join(target).join(format!("seed-{name}")), seed)?;
    }
    Ok(())
}
