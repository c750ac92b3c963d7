#!/bin/bash
#SBATCH --job-name=attune-job_01JZZZZZZZZZZZZZZZZZZZZZZZ-2
#SBATCH --comment=attune,attempt=2,lease=2026-11-28T10:00:54Z
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --output=/shared/attune/work/job_01JZZZZZZZZZZZZZZZZZZZZZZZ/attempt-2/gang-1/slurm.log
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --partition=gpu
#SBATCH --account=research
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
export PET_MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PET_MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
exec srun --kill-on-bad-exit=1 /opt/attune/bin/python -P -m worker.launchers.agent /shared/attune/work/job_01JZZZZZZZZZZZZZZZZZZZZZZZ/attempt-2/gang-1
