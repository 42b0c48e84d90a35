#!/usr/bin/env bash
# data/get_cifar.sh, given as the argument, without a network: archives are small made-up ones at
# file:// URLs, and the script under test is a copy with their MD5s in place of the official ones.
. "$(dirname "$0")/get_data.sh"
export CIFAR_URL=file://$temp/server

# The archives: every .bin file has its own name for its content.
mkdir -p server made/cifar-10-batches-bin made/cifar-100-binary
for n in 1 2 3 4 5; do echo "data_batch_$n" > made/cifar-10-batches-bin/data_batch_$n.bin; done
echo test_batch > made/cifar-10-batches-bin/test_batch.bin
echo names > made/cifar-10-batches-bin/batches.meta.txt
echo train > made/cifar-100-binary/train.bin
echo test > made/cifar-100-binary/test.bin
tar -C made -czf server/cifar-10-binary.tar.gz cifar-10-batches-bin
tar -C made -czf server/cifar-100-binary.tar.gz cifar-100-binary

# In the copy, each official sum gives way to that of the file made above.
program=$temp/copy.sh
cp "$real" "$program"
for file in server/*.tar.gz made/*/*.bin; do
  sum=$(md5sum < "$file")
  name=${file#*/}
  sed -i "s|^[0-9a-f]\{32\}  $name\$|${sum%% *}  $name|" "$program"
done

# With the official sums, what the server has is refused and not kept.
program=$real
expect 1 "the MD5 is not the official c32a1d4ab5d03f1284b67883e8d87530" cifar10 refused
expect 1 "the MD5 is not the official 03b5dce01913d631647c71ecec9e9cb8" cifar100 refused
[ -z "$(ls -A refused)" ]
program=$temp/copy.sh

# From nothing, both; then nothing is left to do, not even with the server gone.
expect 0 "cifar100: downloaded and correct in both" all both
for folder in cifar-10-batches-bin cifar-100-binary; do
  for file in "made/$folder"/*; do same "$file" "both/$folder/${file##*/}"; done
done
[ "$(find both -mindepth 1 -maxdepth 1 | wc -l)" = 2 ]
mv server gone
expect 0 "cifar10: there and correct in both" all both
expect 1 "server/cifar-10-binary.tar.gz: " cifar10 new
mv gone server

# A damaged file is noticed and replaced; the default directory is ./cifar.
echo damaged > both/cifar-10-batches-bin/data_batch_3.bin
expect 0 "cifar10: downloaded" cifar10 both
same made/cifar-10-batches-bin/data_batch_3.bin both/cifar-10-batches-bin/data_batch_3.bin
expect 0 "correct in cifar" cifar100
same made/cifar-100-binary/test.bin cifar/cifar-100-binary/test.bin

# A download that was cut is continued: with its first bytes wrong, so is the sum of the whole.
mkdir cut whole
head -c 50 server/cifar-100-binary.tar.gz > cut/cifar-100-binary.tar.gz.part
expect 0 "cifar100: downloaded" cifar100 cut
head -c 50 /dev/zero > cut/cifar-10-binary.tar.gz.part
expect 1 "the MD5 is not" cifar10 cut
# One that was complete, but not unpacked, needs no server.
cp server/cifar-10-binary.tar.gz whole/cifar-10-binary.tar.gz.part
CIFAR_URL=file:///nowhere expect 0 "cifar10: downloaded" cifar10 whole

# An archive of the right sum with the wrong files, and one that is no archive.
sed -i "s|^[0-9a-f]*  cifar-100-binary/test.bin|$(printf '%032d' 0)  cifar-100-binary/test.bin|" copy.sh
expect 1 "cifar-100-binary/test.bin in it is missing, or its MD5" cifar100 wrong
echo "no archive" > server/cifar-100-binary.tar.gz
sum=$(md5sum < server/cifar-100-binary.tar.gz)
sed -i "s|^[0-9a-f]*  cifar-100-binary.tar.gz|${sum%% *}  cifar-100-binary.tar.gz|" copy.sh
rm -r wrong
expect 1 "cannot be unpacked" cifar100 wrong
[ ! -e wrong/cifar-100-binary ]

# Arguments.
expect 2 "'mnist' is not cifar10, cifar100 or all" mnist
expect 2 "too many arguments, from 'c'" all b c
expect 1 "copy.sh: the directory cannot be made" all copy.sh
expect 0 "CIFAR_URL" --help
echo "get_cifar.sh: all as expected"
