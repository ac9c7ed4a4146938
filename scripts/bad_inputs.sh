#!/bin/sh
# Gives penjing every kind of bad input and prints what it says, as a markdown table:
#   cargo build --release -p penjing-cli && sh scripts/bad_inputs.sh > table.md
# PENJING names another binary. Files are made in a temporary folder, which is removed at the end.
set -u
stdin=
penjing=${PENJING:-$(cd "$(dirname "$0")/.." && pwd)/target/release/penjing}
[ -x "$penjing" ] || { echo "no $penjing: run cargo build --release -p penjing-cli" >&2; exit 1; }
dir=$(mktemp -d) && cd "$dir" || exit 1
trap 'cd /; rm -rf "$dir"' EXIT
export PENJING_CACHE="$dir/cache" LC_ALL=C

# bmp FILE SEED CHANNEL: 16 x 16 pixels of noise, one channel brighter.
bmp() {
    mkdir -p "$(dirname "$1")"
    { printf 'BM\066\003\0\0\0\0\0\0\066\0\0\0\050\0\0\0\020\0\0\0\020\0\0\0\001\0\030\0\0\0\0\0\0\003\0\0'
      printf '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
      awk -v seed="$2" -v channel="$3" 'BEGIN {
          srand(seed)
          for (i = 0; i < 768; i++) printf "%c", (i % 3 == channel ? 64 : 1) + int(rand() * 63)
      }'; } > "$1"
}

# try INPUT ARGUMENTS…: a row with the first line on stderr and the exit code.
try() {
    input=$1; shift
    "$penjing" "$@" > out 2> err < "${stdin:-/dev/null}"; code=$?
    # That a handful of photos makes a head only is no fault of theirs.
    said=$(grep -v 'photos are too few to train' err | head -n 1 | sed "s|$dir/||g; s/|/\\\\|/g; s/\`/'/g")
    grep -q panicked err && said="PANIC: $said"
    [ -n "$said" ] && said="\`$said\`"
    echo "| $input | \`penjing $(echo "$*" | sed 's/|/\\|/g')\` | $said | $code |"
}

# stream INPUT FILE ARGUMENTS…: as try, with the file on stdin.
stream() { input=$1 stdin=$2; shift 2; try "$input" "$@"; stdin=; }

photos() { for i in 1 2 3 4 5; do bmp "$1/red/$i.bmp" $i 2; bmp "$1/green/$i.bmp" 1$i 1; done; }
train() { input=$1 folder=$2; shift 2; rm -f out.penjing; try "$input" train "$folder" -o out.penjing "$@"; }
# with NAME: good photos, and one more file that comes on stdin, in a folder of its own.
with() { photos "${1%.*}"; cat > "${1%.*}/red/$1"; }

echo '| input | command | what penjing says | exit code |'
echo '|---|---|---|---|'

photos photos
"$penjing" train photos -o m.penjing --recipe head --quiet > out || exit 1
train 'good photos, for comparison' photos
train 'a folder that is not there' nowhere
mkdir void; train 'an empty folder' void
bmp one/red/1.bmp 1 2; bmp one/red/2.bmp 2 2
train 'photos of one class only' one
train 'photos, but no class folders' photos/red
photos lone; bmp lone/blue/1.bmp 21 0
train 'a class of one photo' lone
echo words | with text.jpg; train 'text named .jpg' text
: | with empty.jpg; train 'a photo of 0 bytes' empty
printf '\377\330\377\340\000\020JFIF\000\001\001\000\000\001\000\001\000\000\377\333\000C\000' | with cut.jpg
train 'a JPEG cut short' cut
printf '\211PNG\r\n\032\n\000\000\000\015IHDR\000\000\234\100\000\000\234\100\010\002\000\000\000\336\156\231\122' > bomb
printf '\000\000\000\002IDAT\170\234\142\244\221\053' >> bomb
with huge.png < bomb; train 'a PNG of 40,000 × 40,000 pixels' huge
mkdir -p dead/a dead/b; for i in a/1 a/2 b/1 b/2; do echo x > dead/$i.jpg; done
train 'no photo can be read' dead
photos twin; cp twin/red/1.bmp twin/green/9.bmp; train 'one photo under two labels' twin
printf 'path,label\nphotos/red/1.bmp,red\ngone.bmp,green\n' > table.csv; train 'a CSV that lists a missing file' table.csv
printf 'file;class\n' > head.csv; train 'a CSV with another header' head.csv
photos parts/train; bmp parts/test/blue/1.bmp 21 0; train 'a class that is only in test/' parts

try 'an output that exists' train photos -o m.penjing
try 'an output in a missing folder' train photos -o new/m.penjing
try 'an output that is a folder' train photos -o photos

# A run that is interrupted after some steps leaves its state.
whole="--recipe scratch --backbone mobilenet_v1_x0.25 --size 32 --epochs 10000"
PENJING_KEEP_SECONDS=0 timeout -s INT 2 "$penjing" train photos -o part.penjing $whole --quiet > out
go_on() { input=$1; shift; try "$input" train "$@"; }
go_on 'the state of training with another seed' photos -o part.penjing $whole --seed 1
photos more; bmp more/red/6.bmp 6 2
go_on 'the state of training on other photos' more -o part.penjing $whole
go_on 'the state of training, and only a head now' photos -o part.penjing --recipe head
head -c 1000 part.penjing.part > short; mv short part.penjing.part
go_on 'half a state of training' photos -o part.penjing $whole
rm part.penjing.part; go_on 'an unfinished model without its state' photos -o part.penjing $whole
go_on 'a model that goes on into itself' photos -o m.penjing --from m.penjing --force
photos lost; mv lost/red lost/blue; go_on 'photos that lack a class of the model' lost -o out.penjing --from m.penjing
go_on 'a teacher of other labels' lost -o out.penjing --teacher m.penjing --recipe scratch
train 'a teacher, and no network to teach' photos --teacher m.penjing
train 'a time that is too short' photos --recipe scratch --size 384 --time 1s
train 'memory that is too small' photos --recipe finetune --size 64 --memory 1MB

model() { try "$1" inspect "$2"; }
model 'a model that is not there' gone.penjing
: > empty.penjing; model 'an empty model' empty.penjing
size=$(wc -c < m.penjing)
head -c $((size / 2)) m.penjing > half.penjing; model 'half a model' half.penjing
{ head -c $((size / 2)) m.penjing; printf '~'; tail -c +$((size / 2 + 2)) m.penjing; } > changed.penjing
model 'one changed byte' changed.penjing
sed 's/\\"format\\":1,/\\"format\\":9,/' m.penjing > future.penjing; model 'a future format' future.penjing
{ printf '\066\0\0\0\0\0\0\0{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'; printf '\0\0\0\0'; } > other.safetensors
model 'safetensors of another tool' other.safetensors
{ printf 'PK\003\004'; head -c 400 /dev/zero; } > archive.zip; model 'a zip' archive.zip
{ printf '\0\0\0\0\0\0\0\100'; tail -c +9 m.penjing; } > endless.penjing; model 'a header of 2⁶² bytes' endless.penjing

import() { input=$1; shift; rm -f b.penjing; try "$input" weights import "$@" -o b.penjing; }
"$penjing" export m.penjing --to onnx -o m.onnx > /dev/null || exit 1
head -c $(($(wc -c < m.onnx) / 2)) m.onnx > half.onnx; import 'half an ONNX file' half.onnx
sed 's/Clip/Blip/' m.onnx > blip.onnx; import 'an operation that is not known' blip.onnx
printf '\010\010\072\000' > nothing.onnx; import 'an ONNX file of nothing' nothing.onnx
import 'a network, and a name for it' m.onnx --arch mobilenet_v2
import 'weights, and no name of their network' other.safetensors
import 'a deviation of pixels that are 0 to 1' m.onnx --std 0.229

try 'one photo missing among others' classify m.penjing photos gone.jpg
try 'a folder without photos' classify m.penjing void
try 'a stream without a frame' classify m.penjing - --frames mjpeg
stream 'a stream of no JPEGs' photos/red/1.bmp classify m.penjing - --frames mjpeg
stream 'a raw frame cut short' photos/red/1.bmp classify m.penjing - --frames 640x480
try 'frames, but not from stdin' classify m.penjing photos --frames mjpeg
try 'photo and model swapped' classify photos/red/1.bmp m.penjing
photos other; mv other/red other/horse; try 'classes that the model does not know' eval m.penjing other

for flag in '--recipe magic' '--epochs 0' '--time 10' '--memory 500' '--balance 2' '--recipe head --epochs 3' \
    '--recipe scratch --from m.penjing' '--backbone mobilenet_v2_x0.5' '--threads 0' '--views 0' '--size 7' '--size abc' '--backbone nonsense' '--group-by (' '--group-by nomatch' '--nonsense'; do
    # shellcheck disable=SC2086
    train 'a flag that cannot be meant' photos $flag
done
try 'a network that nobody knows' bench --arch nonsense
printf 'name = "n"\n[[row]]\nkind = "conv"\nchannels = 8\nstrid = 2\n' > net.toml
try 'a row with a number of no meaning' bench --arch net.toml
try 'a declaration where weights are wanted' train photos -o out.penjing --backbone net.toml
printf '\034\0\0\0TFL3' > cut.tflite; try 'a TensorFlow Lite file cut short' weights import cut.tflite -o new.penjing
printf 'x' > weights.bin; try 'weights without a network' weights import weights.bin -o new.penjing

try 'weights that nobody has published' weights pull nonsense
try 'weights that are not in the cache, and no network' weights pull mobilenet_v2 --offline
export PENJING_HUB=nonsense; try 'a mirror (PENJING_HUB) that is no address' weights pull mobilenet_v2
export PENJING_HUB=http://127.0.0.1:1 HTTPS_PROXY= HTTP_PROXY= ALL_PROXY= NO_PROXY=127.0.0.1
try 'a hub that is not there' weights pull mobilenet_v2 --quiet
mkdir -p cache/hub/mobilenet_v2; echo '{}' > cache/hub/mobilenet_v2/source.lock
try 'a damaged record of a pull' weights verify
