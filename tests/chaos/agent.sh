#!/bin/sh
# A scripted agent of kind "command" for the chaos suite; not part of the product. What it does is the last word of
# its prompt, which comes by stdin.
prompt=$(cat)
echo "heard"
case "$prompt" in
*'!die') exit 3 ;;
*'!kill') kill -9 $$ ;;
# Hears neither a polite end nor a closed pipe.
*'!hang') trap '' TERM; while :; do sleep 1; done ;;
# Leaves a child behind that ignores everything, in its own group and beyond it.
*'!fork')
    (trap '' TERM; exec sleep 300) >/dev/null 2>&1 &
    setsid sh -c 'trap "" TERM; exec sleep 300' >/dev/null 2>&1 &
    ;;
*'!slow') for i in 1 2 3 4 5; do echo "word $i"; sleep 0.05; done ;;
esac
echo "done"
