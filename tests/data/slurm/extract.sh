#!/bin/bash
# mirprobe: features of musicfm-gtzan for 5 cells
# By hand: sbatch, in this folder.
#SBATCH --job-name=extract-musicfm-gtzan-b8768c2e
#SBATCH --output=logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --partition=gpu
#SBATCH --account=music
#SBATCH --qos=long
#SBATCH --constraint="a100|h100"
#SBATCH --exclude="node[07-09]"
#SBATCH --time=04:00:00
#SBATCH --mem=64G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --mail-type=END
#SBATCH --exclusive

cd '/home/jo/mir probe' || { echo "mirprobe: node $(hostname) does not see "'/home/jo/mir probe'; exit 1; }
unset MASTER_ADDR MASTER_PORT WORLD_SIZE RANK LOCAL_RANK NODE_RANK GROUP_RANK
export OMP_NUM_THREADS=8 SRUN_CPUS_PER_TASK=8
export WANDB_MODE=offline HF_HUB_OFFLINE=1  # later, where there is a network: push
module load cuda
source ~/env/bin/activate

cells=(
  --cell=/runs/musicfm/gtzan_genre/s0/config.yaml
  --cell=/runs/musicfm/gtzan_genre/s1/config.yaml
  --cell=/runs/musicfm/gtzan_genre/s2/config.yaml
  --cell=/runs/musicfm/gtzan_genre/s3/config.yaml
  --cell=/runs/musicfm/gtzan_genre/s4/config.yaml
)
srun --nodes=2 --ntasks-per-node=4 --kill-on-bad-exit=0 --wait=90 --label /opt/mir/bin/python -m mirprobe extract "${cells[@]}"
code=$?

# Ended by USR1 (the time limit is near) or TERM (preempted): back into the queue,
# unless the job itself was cancelled and is being ended.
if [ $code = 138 ] || [ $code = 143 ]; then
  state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
  if [ "$state" = RUNNING ] && [ ${SLURM_RESTART_COUNT:-0} -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID" && sleep 300  # SLURM ends this script here
  fi
fi
exit $code
