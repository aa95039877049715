#!/bin/bash
# mirprobe: report of 5 cells
# By hand: sbatch, in this folder.
#SBATCH --job-name=report-all-b53b99a4
#SBATCH --output=logs/%x-%j.out
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
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --dependency=afterany:12:13
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=END
#SBATCH --exclusive

cd '/home/jo/mir probe' || { echo "mirprobe: node $(hostname) does not see "'/home/jo/mir probe'; exit 1; }
unset MASTER_ADDR MASTER_PORT WORLD_SIZE RANK LOCAL_RANK NODE_RANK GROUP_RANK
export OMP_NUM_THREADS=8 SRUN_CPUS_PER_TASK=8
export WANDB_MODE=offline HF_HUB_OFFLINE=1  # later, where there is a network: push
module load cuda
source ~/env/bin/activate

cells=(--cell=/runs/musicfm/gtzan_genre/s0/config.yaml --cell=/runs/musicfm/gtzan_genre/s1/config.yaml --cell=/runs/musicfm/gtzan_genre/s2/config.yaml --cell=/runs/musicfm/gtzan_genre/s3/config.yaml --cell=/runs/musicfm/gtzan_genre/s4/config.yaml)
/opt/mir/bin/python -m mirprobe report "${cells[@]}"
/opt/mir/bin/python -m mirprobe status "${cells[@]}"
