#!/bin/bash
# mirprobe: probes of musicfm-gtzan, 5 cells
# By hand: sbatch, in this folder.
#SBATCH --job-name=probe-musicfm-gtzan-ffcdbdd3
#SBATCH --output=logs/%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --partition=gpu
#SBATCH --account=music
#SBATCH --qos=long
#SBATCH --constraint="a100|h100"
#SBATCH --exclude="node[07-09]"
#SBATCH --time=04:00:00
#SBATCH --mem=64G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --array=0-2%16
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --dependency=afterok:12
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=END
#SBATCH --exclusive

cd '/home/jo/mir probe' || { echo "mirprobe: node $(hostname) does not see "'/home/jo/mir probe'; exit 1; }
unset MASTER_ADDR MASTER_PORT WORLD_SIZE RANK LOCAL_RANK NODE_RANK GROUP_RANK
export OMP_NUM_THREADS=8 SRUN_CPUS_PER_TASK=8
export WANDB_MODE=offline HF_HUB_OFFLINE=1  # later, where there is a network: push
module load cuda
source ~/env/bin/activate

case $SLURM_ARRAY_TASK_ID in
  0) cells=(--cell=/runs/musicfm/gtzan_genre/s0/config.yaml --cell=/runs/musicfm/gtzan_genre/s1/config.yaml) ;;
  1) cells=(--cell=/runs/musicfm/gtzan_genre/s2/config.yaml --cell=/runs/musicfm/gtzan_genre/s3/config.yaml) ;;
  2) cells=(--cell=/runs/musicfm/gtzan_genre/s4/config.yaml) ;;
esac
srun --nodes=1 --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=90 /opt/mir/bin/python -m mirprobe probe "${cells[@]}"
code=$?

# Ended by USR1 (the time limit is near) or TERM (preempted): back into the queue,
# unless the job itself was cancelled and is being ended.
if [ $code = 138 ] || [ $code = 143 ]; then
  state=$(squeue --noheader --jobs="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" --format=%T)
  if [ "$state" = RUNNING ] && [ ${SLURM_RESTART_COUNT:-0} -lt 20 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" && sleep 300  # SLURM ends this script here
  fi
fi
exit $code
