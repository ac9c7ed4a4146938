//! A folder to work in, photos to put there, and the program to run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

/// What a run of the program left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The document on stdout of a run that went well.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Fails unless the program ended with `code`, wrote no result, and has one line on stderr with all the words.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        self.says(words);
    }

    /// Fails unless one line on stderr has all the words.
    #[track_caller]
    pub fn says(&self, words: &[&str]) {
        let said = self.err.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(said, "no line has {words:?}: {self:?}");
    }
}

/// A folder of one's own, removed at the end, with a feature cache of its own inside.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// So many photos `FOLDER/CLASS/N.png` of each class.
    pub fn photos(&self, folder: &str, classes: &[&str], count: usize) {
        for (index, class) in classes.iter().enumerate() {
            for number in 0..count {
                self.write(&format!("{folder}/{class}/{number}.png"), photo(index, number));
            }
        }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        command(self.0.path(), args)
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), args)
    }

    /// `penjing train FOLDER -o MODEL`, quick, with further arguments; a head unless they say otherwise.
    #[track_caller]
    pub fn train(&self, folder: &str, model: &str, more: &[&str]) -> Ran {
        let recipe: &[&str] = if more.contains(&"--recipe") { &[] } else { &["--recipe", "head"] };
        let args = [&["train", folder, "-o", model, "--json"], QUICK, recipe, more].concat();
        self.run(&args)
    }

    /// Trains the whole network of [`tiny`] on 32 × 32 pixels: `penjing train FOLDER -o MODEL` with further arguments.
    #[track_caller]
    pub fn learn(&self, folder: &str, model: &str, more: &[&str]) -> Ran {
        let args = whole(folder, model, more);
        self.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What is in a file.
    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }

    /// Names of what lies in the folder, the hidden included.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A small input makes a training run a matter of tenths of a second.
pub const QUICK: &[&str] = &["--size", "64"];

/// Class names in several scripts, sorted by code point.
pub const CLASSES: [&str; 4] = ["two words", "Ελληνικά", "日本語", "🌳"];

/// A model of [`CLASSES`], made once for all tests; its photos lie beside it in `photos`.
pub fn trained() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let place = Place::new();
        place.photos("photos", &CLASSES, 6);
        let ran = place.train("photos", "m.penjing", &[]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        // A static is never dropped, so what stays lies where builds do.
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trained.penjing");
        fs::copy(place.at("m.penjing"), &kept).unwrap();
        kept
    })
}

/// What a model has learnt: its file without the header, which also tells the seed and the recipe.
pub fn weights(place: &Place, model: &str) -> Vec<u8> {
    let bytes = place.read(model);
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[8 + header..].to_vec()
}

/// The arguments of [`Place::learn`].
pub fn whole(folder: &str, model: &str, more: &[&str]) -> Vec<String> {
    let mut args: Vec<String> =
        ["train", folder, "-o", model, "--json", "--size", "32"].map(String::from).to_vec();
    if !more.iter().any(|flag| ["--backbone", "--from"].contains(flag)) {
        args.extend(["--backbone".into(), tiny().to_str().unwrap().into()]);
    }
    args.extend(more.iter().map(|arg| arg.to_string()));
    args
}

/// A network of 0.2 million parameters that has learnt a little, made once for all tests.
pub fn tiny() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let place = Place::new();
        place.photos("photos", &CLASSES, 6);
        let network = ["--recipe", "scratch", "--backbone", "mobilenet_v1_x0.25", "--epochs", "2"];
        let ran = place.learn("photos", "m.penjing", &network);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tiny.penjing");
        fs::copy(place.at("m.penjing"), &kept).unwrap();
        kept
    })
}

/// A PNG of noise around the class's colour; the same numbers give the same photo.
pub fn photo(class: usize, number: usize) -> Vec<u8> {
    encoded(class, number, image::ImageFormat::Png)
}

pub fn encoded(class: usize, number: usize, format: image::ImageFormat) -> Vec<u8> {
    let mut state = (1 + class * 1000 + number) as u32;
    let base = [[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]][class % 4];
    let image = image::RgbImage::from_fn(40, 32, |_, _| {
        image::Rgb(base.map(|value: u8| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            value.wrapping_add((state >> 27) as u8)
        }))
    });
    if format == image::ImageFormat::Jpeg {
        return jpeg(&image);
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn jpeg(image: &image::RgbImage) -> Vec<u8> {
    use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};
    let (width, height) = (image.width() as usize, image.height() as usize);
    compress(image.as_raw(), width, height, PixelFormat::Rgb, 75, Subsampling::S444).unwrap()
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penjing"));
    command.args(args).current_dir(folder).env("PENJING_CACHE", folder.join("cache"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn finish(mut command: Command, args: &[&str]) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    if args.contains(&"--json") && !ran.out.is_empty() {
        assert!(ran.out.ends_with('\n') && ran.out.lines().count() == 1, "{ran:?}");
        serde_json::from_str::<Value>(&ran.out).unwrap();
    }
    ran
}
