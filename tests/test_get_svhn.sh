#!/usr/bin/env bash
# data/get_svhn.sh, given as the argument, without a network: files are small made-up ones at
# file:// URLs, and the script under test is a copy with their MD5s in place of the real ones.
. "$(dirname "$0")/get_data.sh"
export SVHN_URL=file://$temp/server

mkdir server
program=$temp/copy.sh
cp "$real" copy.sh
for name in train test extra; do
  echo "the images of $name" > server/${name}_32x32.mat
  sum=$(md5sum < server/${name}_32x32.mat)
  sed -i "s|[0-9a-f]\{32\}  ${name}_32x32.mat|${sum%% *}  ${name}_32x32.mat|" copy.sh
done

# With the real sums, what the server has is refused and not kept.
program=$real
expect 1 "the MD5 is not e26dedcc434d2e4c54c9b2d4a06d8373" all refused
[ -z "$(ls -A refused)" ]
program=$temp/copy.sh

expect 0 "extra_32x32.mat: downloaded and correct in all" all all
for name in train test extra; do same server/${name}_32x32.mat all/${name}_32x32.mat; done
[ "$(ls all | wc -l)" = 3 ]
expect 0 "test_32x32.mat: downloaded and correct in svhn" small
[ ! -e svhn/extra_32x32.mat ]
expect 0 "extra_32x32.mat: downloaded and correct in svhn"

# Nothing is left to do, not even with the server gone; a damaged file is replaced.
mv server gone
expect 0 "train_32x32.mat: there and correct in all" all all
expect 1 "server/train_32x32.mat: " all new
mv gone server
echo damaged > all/test_32x32.mat
expect 0 "test_32x32.mat: downloaded" all all
same server/test_32x32.mat all/test_32x32.mat

# A download that was cut is continued: with its first bytes wrong, so is the sum of the whole.
mkdir cut
head -c 9 server/train_32x32.mat > cut/train_32x32.mat.part
head -c 9 /dev/zero > cut/test_32x32.mat.part
expect 1 "server/test_32x32.mat: the MD5 is not" small cut
same server/train_32x32.mat cut/train_32x32.mat

expect 2 "'train' is not all or small" train
expect 2 "too many arguments, from 'c'" all b c
expect 1 "copy.sh: the directory cannot be made" all copy.sh
expect 0 "SVHN_URL" --help
echo "get_svhn.sh: all as expected"
